/// Exact `out = T q` for M x K, format `i2_s`, isa `avx2`.
///
/// Weights: rows of 128-weight blocks, 32 bytes each, four planes of 2-bit codes t + 1.
///
/// int16 bound, pairs of codes 0..2 times q: 64 adds of at most 512 reach 32768, then the lanes are widened to int32.
/// int16 bound, pairs of codes 0..2, in place x4, times q: 16 adds of at most 2048 reach 32768, then the lanes are widened to int32.
///
/// Memory: `Gemv::check` compares both slices with the shape; every offset below is inside the layout of that shape.
#[target_feature(enable = "avx2,bmi1,bmi2,f16c")]
#[allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    reason = "generated; the safety of every load is argued once, in the documentation"
)]
fn gemv_i2s_maddx4_r1u2_avx2(call: &mut ::trilut_kernels::Gemv<'_>) {
    use ::core::arch::x86_64::*;
    let (weights, q) = call
        .check(::trilut_kernels::Layout::I2s, ::trilut_kernels::Activation::Plain);
    let k = call.shape.k;
    let blocks = k.div_ceil(128usize);
    let stride = blocks * 32;
    let end = call.rows.end;
    let mut row = call.rows.start;
    while row < end {
        let base0 = (row + 0usize) * stride;
        let mut sum0 = _mm256_setzero_si256();
        let mut sum1 = _mm256_setzero_si256();
        let steps = blocks;
        let mut step = 0;
        while step < steps {
            let bank_end = usize::min(step + 32usize, steps);
            let mut bank0 = _mm256_setzero_si256();
            while step < bank_end {
                let bank_x4_end = usize::min(step + 8usize, bank_end);
                let mut bank_x4_0 = _mm256_setzero_si256();
                while step + 2usize <= bank_x4_end {
                    _mm_prefetch::<
                        _MM_HINT_T0,
                    >(
                        weights
                            .as_ptr()
                            .wrapping_add(base0 + step * 32usize + call.prefetch)
                            .cast(),
                    );
                    let q0 = unsafe {
                        _mm256_loadu_si256(
                            q.as_ptr().add(step * 128usize + 0usize).cast(),
                        )
                    };
                    let q1 = unsafe {
                        _mm256_loadu_si256(
                            q.as_ptr().add(step * 128usize + 32usize).cast(),
                        )
                    };
                    let q2 = unsafe {
                        _mm256_loadu_si256(
                            q.as_ptr().add(step * 128usize + 64usize).cast(),
                        )
                    };
                    let q3 = unsafe {
                        _mm256_loadu_si256(
                            q.as_ptr().add(step * 128usize + 96usize).cast(),
                        )
                    };
                    let codes0 = unsafe {
                        _mm256_loadu_si256(
                            weights.as_ptr().add(base0 + step * 32usize + 0usize).cast(),
                        )
                    };
                    let field0 = _mm256_and_si256(
                        _mm256_srli_epi16::<4i32>(codes0),
                        _mm256_set1_epi8(12u8 as i8),
                    );
                    let pairs0 = _mm256_maddubs_epi16(field0, q0);
                    bank_x4_0 = _mm256_add_epi16(bank_x4_0, pairs0);
                    let field1 = _mm256_and_si256(
                        _mm256_srli_epi16::<4i32>(codes0),
                        _mm256_set1_epi8(3u8 as i8),
                    );
                    let pairs1 = _mm256_maddubs_epi16(field1, q1);
                    bank0 = _mm256_add_epi16(bank0, pairs1);
                    let field2 = _mm256_and_si256(codes0, _mm256_set1_epi8(12u8 as i8));
                    let pairs2 = _mm256_maddubs_epi16(field2, q2);
                    bank_x4_0 = _mm256_add_epi16(bank_x4_0, pairs2);
                    let field3 = _mm256_and_si256(codes0, _mm256_set1_epi8(3u8 as i8));
                    let pairs3 = _mm256_maddubs_epi16(field3, q3);
                    bank0 = _mm256_add_epi16(bank0, pairs3);
                    let q4 = unsafe {
                        _mm256_loadu_si256(
                            q.as_ptr().add((step + 1usize) * 128usize + 0usize).cast(),
                        )
                    };
                    let q5 = unsafe {
                        _mm256_loadu_si256(
                            q.as_ptr().add((step + 1usize) * 128usize + 32usize).cast(),
                        )
                    };
                    let q6 = unsafe {
                        _mm256_loadu_si256(
                            q.as_ptr().add((step + 1usize) * 128usize + 64usize).cast(),
                        )
                    };
                    let q7 = unsafe {
                        _mm256_loadu_si256(
                            q.as_ptr().add((step + 1usize) * 128usize + 96usize).cast(),
                        )
                    };
                    let codes1 = unsafe {
                        _mm256_loadu_si256(
                            weights
                                .as_ptr()
                                .add(base0 + (step + 1usize) * 32usize + 0usize)
                                .cast(),
                        )
                    };
                    let field4 = _mm256_and_si256(
                        _mm256_srli_epi16::<4i32>(codes1),
                        _mm256_set1_epi8(12u8 as i8),
                    );
                    let pairs4 = _mm256_maddubs_epi16(field4, q4);
                    bank_x4_0 = _mm256_add_epi16(bank_x4_0, pairs4);
                    let field5 = _mm256_and_si256(
                        _mm256_srli_epi16::<4i32>(codes1),
                        _mm256_set1_epi8(3u8 as i8),
                    );
                    let pairs5 = _mm256_maddubs_epi16(field5, q5);
                    bank0 = _mm256_add_epi16(bank0, pairs5);
                    let field6 = _mm256_and_si256(codes1, _mm256_set1_epi8(12u8 as i8));
                    let pairs6 = _mm256_maddubs_epi16(field6, q6);
                    bank_x4_0 = _mm256_add_epi16(bank_x4_0, pairs6);
                    let field7 = _mm256_and_si256(codes1, _mm256_set1_epi8(3u8 as i8));
                    let pairs7 = _mm256_maddubs_epi16(field7, q7);
                    bank0 = _mm256_add_epi16(bank0, pairs7);
                    step += 2usize;
                }
                while step < bank_x4_end {
                    _mm_prefetch::<
                        _MM_HINT_T0,
                    >(
                        weights
                            .as_ptr()
                            .wrapping_add(base0 + step * 32usize + call.prefetch)
                            .cast(),
                    );
                    let q8 = unsafe {
                        _mm256_loadu_si256(
                            q.as_ptr().add(step * 128usize + 0usize).cast(),
                        )
                    };
                    let q9 = unsafe {
                        _mm256_loadu_si256(
                            q.as_ptr().add(step * 128usize + 32usize).cast(),
                        )
                    };
                    let q10 = unsafe {
                        _mm256_loadu_si256(
                            q.as_ptr().add(step * 128usize + 64usize).cast(),
                        )
                    };
                    let q11 = unsafe {
                        _mm256_loadu_si256(
                            q.as_ptr().add(step * 128usize + 96usize).cast(),
                        )
                    };
                    let codes2 = unsafe {
                        _mm256_loadu_si256(
                            weights.as_ptr().add(base0 + step * 32usize + 0usize).cast(),
                        )
                    };
                    let field8 = _mm256_and_si256(
                        _mm256_srli_epi16::<4i32>(codes2),
                        _mm256_set1_epi8(12u8 as i8),
                    );
                    let pairs8 = _mm256_maddubs_epi16(field8, q8);
                    bank_x4_0 = _mm256_add_epi16(bank_x4_0, pairs8);
                    let field9 = _mm256_and_si256(
                        _mm256_srli_epi16::<4i32>(codes2),
                        _mm256_set1_epi8(3u8 as i8),
                    );
                    let pairs9 = _mm256_maddubs_epi16(field9, q9);
                    bank0 = _mm256_add_epi16(bank0, pairs9);
                    let field10 = _mm256_and_si256(codes2, _mm256_set1_epi8(12u8 as i8));
                    let pairs10 = _mm256_maddubs_epi16(field10, q10);
                    bank_x4_0 = _mm256_add_epi16(bank_x4_0, pairs10);
                    let field11 = _mm256_and_si256(codes2, _mm256_set1_epi8(3u8 as i8));
                    let pairs11 = _mm256_maddubs_epi16(field11, q11);
                    bank0 = _mm256_add_epi16(bank0, pairs11);
                    step += 1;
                }
                sum1 = _mm256_add_epi32(
                    sum1,
                    _mm256_madd_epi16(bank_x4_0, _mm256_set1_epi16(1)),
                );
            }
            sum0 = _mm256_add_epi32(
                sum0,
                _mm256_madd_epi16(bank0, _mm256_set1_epi16(1)),
            );
        }
        let exact0 = _mm256_srai_epi32::<2i32>(sum1);
        let total0 = _mm256_add_epi32(sum0, exact0);
        call.out[row - call.rows.start + 0usize] = ::trilut_kernels::lanes::avx2::sum(
            total0,
        ) + (-call.sum);
        row += 1usize;
    }
}
