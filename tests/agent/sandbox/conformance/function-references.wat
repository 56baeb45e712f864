;; Calls through references whose type says what they call.
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
  (type $unary (func (param i32) (result i32)))
  (elem declare func $increment)
  (func $increment (type $unary) (i32.add (local.get 0) (i32.const 1)))
  (func $twice (param $function (ref $unary)) (param $of i32) (result i32)
    (call_ref $unary (call_ref $unary (local.get $of) (local.get $function)) (local.get $function)))
  (func (export "_start")
    (call $check (i32.eq (call $twice (ref.func $increment) (i32.const 40)) (i32.const 42)))
    (call $ok)))
