;; An indirect call past the table's end.
;; every level: traps, table out of bounds
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1 4)
  (data (i32.const 0) "\08\00\00\00\02\00\00\00ok")
  (func $check (param $holds i32) (if (i32.eqz (local.get $holds)) (then unreachable)))
  (func $ok (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12))))
  (type $nothing (func))
  (table 2 2 funcref)
  (elem (i32.const 0) func $number)
  (func $number (result i32) (i32.const 1))
  (global $which (mut i32) (i32.const 2))
  (func (export "_start")
    (call_indirect (type $nothing) (global.get $which))
    (call $ok)))
