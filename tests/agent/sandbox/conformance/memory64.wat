;; A memory whose addresses have 64 bits.
;; low: ok
;; medium: refused by memory.plain
;; high: refused by specification
;; quantum: refused by specification
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") i64 1 4)
  (data (i64.const 0) "\08\00\00\00\02\00\00\00ok")
  (func $check (param $holds i32) (if (i32.eqz (local.get $holds)) (then unreachable)))
  (func $ok (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12))))
  (func (export "_start")
    (i64.store (i64.const 65528) (i64.const 77))
    (call $check (i64.eq (i64.load offset=8 (i64.const 65520)) (i64.const 77)))
    (call $check (i64.eq (memory.grow (i64.const 1)) (i64.const 1)))
    (call $check (i64.eq (memory.size) (i64.const 2)))
    (call $ok)))
