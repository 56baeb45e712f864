;; Constants that are computed.
;; low: ok
;; medium: ok
;; high: refused by control.features
;; quantum: refused by control.features
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1 4)
  (data (i32.const 0) "\08\00\00\00\02\00\00\00ok")
  (func $check (param $holds i32) (if (i32.eqz (local.get $holds)) (then unreachable)))
  (func $ok (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12))))
  (global $product i32 (i32.mul (i32.const 6) (i32.const 7)))
  (global $difference i64 (i64.sub (i64.const 3) (i64.const 5)))
  (func (export "_start")
    (call $check (i32.eq (global.get $product) (i32.const 42)))
    (call $check (i64.eq (global.get $difference) (i64.const -2)))
    (call $ok)))
