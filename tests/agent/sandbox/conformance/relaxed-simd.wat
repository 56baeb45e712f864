;; Vectors whose lanes may be rounded in one of several ways; here all of them agree.
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
  (func (export "_start")
    (call $check (i8x16.all_true (i8x16.eq (f32x4.relaxed_madd (v128.const f32x4 1 2 3 4) (v128.const f32x4 2 2 2 2) (v128.const f32x4 1 1 1 1)) (v128.const f32x4 3 5 7 9))))
    (call $check (i8x16.all_true (i8x16.eq (i8x16.relaxed_swizzle (v128.const i8x16 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25) (v128.const i8x16 15 14 13 12 11 10 9 8 7 6 5 4 3 2 1 0)) (v128.const i8x16 25 24 23 22 21 20 19 18 17 16 15 14 13 12 11 10))))
    (call $check (i8x16.all_true (i8x16.eq (i32x4.relaxed_trunc_f32x4_s (v128.const f32x4 1.9 -1.9 0 7)) (v128.const i32x4 1 -1 0 7))))
    (call $ok)))
