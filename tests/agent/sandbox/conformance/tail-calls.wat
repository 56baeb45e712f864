;; A million calls in the place of the caller, direct and through a table.
;; low: ok
;; medium: ok
;; high: refused by specification
;; quantum: refused by specification
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1 4)
  (data (i32.const 0) "\08\00\00\00\02\00\00\00ok")
  (func $check (param $holds i32) (if (i32.eqz (local.get $holds)) (then unreachable)))
  (func $ok (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12))))
  (type $test (func (param i32) (result i32)))
  (table 1 1 funcref)
  (elem (i32.const 0) func $even)
  (func $sum (param $last i64) (param $sum i64) (result i64)
    (if (i64.eqz (local.get $last)) (then (return (local.get $sum))))
    (return_call $sum (i64.sub (local.get $last) (i64.const 1)) (i64.add (local.get $sum) (local.get $last))))
  (func $even (type $test)
    (if (i32.eqz (local.get 0)) (then (return (i32.const 1))))
    (return_call $odd (i32.sub (local.get 0) (i32.const 1))))
  (func $odd (type $test)
    (if (i32.eqz (local.get 0)) (then (return (i32.const 0))))
    (return_call_indirect (type $test) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0)))
  (func (export "_start")
    (call $check (i64.eq (call $sum (i64.const 1000000) (i64.const 0)) (i64.const 500000500000)))
    (call $check (i32.eq (call $even (i32.const 1000001)) (i32.const 0)))
    (call $ok)))
