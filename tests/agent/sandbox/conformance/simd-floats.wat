;; Vectors of 128 bits: floating-point lanes, their minima, comparisons and conversions.
;; every level: ok
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1 4)
  (data (i32.const 0) "\08\00\00\00\02\00\00\00ok")
  (func $check (param $holds i32) (if (i32.eqz (local.get $holds)) (then unreachable)))
  (func $ok (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12))))
  (func (export "_start")
    (call $check (i8x16.all_true (i8x16.eq (f32x4.add (v128.const f32x4 1 2 3 4) (v128.const f32x4 0.5 0.25 -3 inf)) (v128.const f32x4 1.5 2.25 0 inf))))
    (call $check (i8x16.all_true (i8x16.eq (f32x4.min (v128.const f32x4 0 -0 1 2) (v128.const f32x4 -0 0 2 1)) (v128.const f32x4 -0 -0 1 1))))
    (call $check (i8x16.all_true (i8x16.eq (f32x4.pmin (v128.const f32x4 0 -0 1 2) (v128.const f32x4 -0 0 2 1)) (v128.const f32x4 0 -0 1 1))))
    (call $check (i8x16.all_true (i8x16.eq (f64x2.sqrt (v128.const f64x2 2 9)) (v128.const f64x2 0x1.6a09e667f3bcdp+0 3))))
    (call $check (i8x16.all_true (i8x16.eq (f64x2.nearest (v128.const f64x2 2.5 -0.4)) (v128.const f64x2 2 -0))))
    (call $check (i8x16.all_true (i8x16.eq (f64x2.lt (v128.const f64x2 nan 1) (v128.const f64x2 1 2)) (v128.const i64x2 0 -1))))
    (call $check (i8x16.all_true (i8x16.eq (i32x4.trunc_sat_f32x4_s (v128.const f32x4 nan 1e20 -1.9 7.9)) (v128.const i32x4 0 2147483647 -1 7))))
    (call $check (i8x16.all_true (i8x16.eq (f64x2.convert_low_i32x4_u (v128.const i32x4 -1 1 0 0)) (v128.const f64x2 4294967295 1))))
    (call $check (i8x16.all_true (i8x16.eq (f32x4.demote_f64x2_zero (v128.const f64x2 1e39 0.5)) (v128.const f32x4 inf 0.5 0 0))))
    (call $ok)))
