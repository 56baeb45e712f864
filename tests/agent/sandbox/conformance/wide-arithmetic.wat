;; An addition of 128 bits.
;; every level: refused by specification
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1 4)
  (data (i32.const 0) "\08\00\00\00\02\00\00\00ok")
  (func $check (param $holds i32) (if (i32.eqz (local.get $holds)) (then unreachable)))
  (func $ok (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12))))
  (func (export "_start")
    (i64.add128 (i64.const 1) (i64.const 0) (i64.const 1) (i64.const 0)) drop drop))
