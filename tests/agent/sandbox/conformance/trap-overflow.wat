;; The one division whose quotient has no place.
;; every level: traps, integer overflow
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1 4)
  (data (i32.const 0) "\08\00\00\00\02\00\00\00ok")
  (func $check (param $holds i32) (if (i32.eqz (local.get $holds)) (then unreachable)))
  (func $ok (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12))))
  (global $least (mut i64) (i64.const 0x8000000000000000))
  (func (export "_start")
    (drop (i64.div_s (global.get $least) (i64.const -1)))
    (call $ok)))
