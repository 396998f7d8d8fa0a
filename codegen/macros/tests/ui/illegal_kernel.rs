fn main() {}

trilut_macros::kernels! {
    kernels = [gemv_i2s_madd_r1u1_avx2, gemv_i2s_madd_r5u1_avx2];
}
