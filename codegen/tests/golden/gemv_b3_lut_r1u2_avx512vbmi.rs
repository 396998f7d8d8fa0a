/// Exact `out = T q` for M x K, format `base3`, isa `avx512vbmi`.
///
/// Weights: rows of 160-weight blocks, 32 bytes each, five planes of base-3 digits t + 1.
///
/// No int16 sums: products go straight to int32.
///
/// Memory: `Gemv::check` compares both slices with the shape; every offset below is inside the layout of that shape.
#[target_feature(
    enable = "avx2,bmi1,bmi2,f16c,avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi"
)]
#[allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    reason = "generated; the safety of every load is argued once, in the documentation"
)]
fn gemv_b3_lut_r1u2_avx512vbmi(call: &mut ::trilut_kernels::Gemv<'_>) {
    use ::core::arch::x86_64::*;
    let (weights, q) = call
        .check(::trilut_kernels::Layout::Base3, ::trilut_kernels::Activation::WideBase3);
    let k = call.shape.k;
    let blocks = k.div_ceil(160usize);
    let stride = blocks * 32;
    let end = call.rows.end;
    let mut row = call.rows.start;
    while row < end {
        let base0 = (row + 0usize) * stride;
        let mut sum0 = _mm512_setzero_si512();
        let mut sum1 = _mm512_setzero_si512();
        let mut sum2 = _mm512_setzero_si512();
        let mut sum3 = _mm512_setzero_si512();
        let mut sum4 = _mm512_setzero_si512();
        let steps = blocks / 2;
        let mut step = 0;
        while step + 2usize <= steps {
            _mm_prefetch::<
                _MM_HINT_T0,
            >(
                weights
                    .as_ptr()
                    .wrapping_add(base0 + step * 64usize + call.prefetch)
                    .cast(),
            );
            let q0 = unsafe {
                _mm512_loadu_si512(q.as_ptr().add(step * 320usize + 0usize).cast())
            };
            let q1 = unsafe {
                _mm512_loadu_si512(q.as_ptr().add(step * 320usize + 64usize).cast())
            };
            let q2 = unsafe {
                _mm512_loadu_si512(q.as_ptr().add(step * 320usize + 128usize).cast())
            };
            let q3 = unsafe {
                _mm512_loadu_si512(q.as_ptr().add(step * 320usize + 192usize).cast())
            };
            let q4 = unsafe {
                _mm512_loadu_si512(q.as_ptr().add(step * 320usize + 256usize).cast())
            };
            let codes0 = unsafe {
                _mm512_loadu_si512(
                    weights.as_ptr().add(base0 + step * 64usize + 0usize).cast(),
                )
            };
            let four0 = ::trilut_kernels::lanes::zmm::map(
                codes0,
                &::trilut_kernels::lanes::base3::FIRST_FOUR,
            );
            let last0 = ::trilut_kernels::lanes::zmm::map(
                codes0,
                &::trilut_kernels::lanes::base3::LAST,
            );
            let field0 = _mm512_and_si512(four0, _mm512_set1_epi8(3u8 as i8));
            sum0 = _mm512_dpbusd_epi32(sum0, field0, q0);
            let field1 = _mm512_and_si512(four0, _mm512_set1_epi8(12u8 as i8));
            sum1 = _mm512_dpbusd_epi32(sum1, field1, q1);
            let field2 = _mm512_and_si512(four0, _mm512_set1_epi8(48u8 as i8));
            sum2 = _mm512_dpbusd_epi32(sum2, field2, q2);
            let field3 = _mm512_and_si512(four0, _mm512_set1_epi8(192u8 as i8));
            sum3 = _mm512_dpbusd_epi32(sum3, field3, q3);
            sum4 = _mm512_dpbusd_epi32(sum4, last0, q4);
            _mm_prefetch::<
                _MM_HINT_T0,
            >(
                weights
                    .as_ptr()
                    .wrapping_add(base0 + (step + 1usize) * 64usize + call.prefetch)
                    .cast(),
            );
            let q5 = unsafe {
                _mm512_loadu_si512(
                    q.as_ptr().add((step + 1usize) * 320usize + 0usize).cast(),
                )
            };
            let q6 = unsafe {
                _mm512_loadu_si512(
                    q.as_ptr().add((step + 1usize) * 320usize + 64usize).cast(),
                )
            };
            let q7 = unsafe {
                _mm512_loadu_si512(
                    q.as_ptr().add((step + 1usize) * 320usize + 128usize).cast(),
                )
            };
            let q8 = unsafe {
                _mm512_loadu_si512(
                    q.as_ptr().add((step + 1usize) * 320usize + 192usize).cast(),
                )
            };
            let q9 = unsafe {
                _mm512_loadu_si512(
                    q.as_ptr().add((step + 1usize) * 320usize + 256usize).cast(),
                )
            };
            let codes1 = unsafe {
                _mm512_loadu_si512(
                    weights
                        .as_ptr()
                        .add(base0 + (step + 1usize) * 64usize + 0usize)
                        .cast(),
                )
            };
            let four1 = ::trilut_kernels::lanes::zmm::map(
                codes1,
                &::trilut_kernels::lanes::base3::FIRST_FOUR,
            );
            let last1 = ::trilut_kernels::lanes::zmm::map(
                codes1,
                &::trilut_kernels::lanes::base3::LAST,
            );
            let field4 = _mm512_and_si512(four1, _mm512_set1_epi8(3u8 as i8));
            sum0 = _mm512_dpbusd_epi32(sum0, field4, q5);
            let field5 = _mm512_and_si512(four1, _mm512_set1_epi8(12u8 as i8));
            sum1 = _mm512_dpbusd_epi32(sum1, field5, q6);
            let field6 = _mm512_and_si512(four1, _mm512_set1_epi8(48u8 as i8));
            sum2 = _mm512_dpbusd_epi32(sum2, field6, q7);
            let field7 = _mm512_and_si512(four1, _mm512_set1_epi8(192u8 as i8));
            sum3 = _mm512_dpbusd_epi32(sum3, field7, q8);
            sum4 = _mm512_dpbusd_epi32(sum4, last1, q9);
            step += 2usize;
        }
        while step < steps {
            _mm_prefetch::<
                _MM_HINT_T0,
            >(
                weights
                    .as_ptr()
                    .wrapping_add(base0 + step * 64usize + call.prefetch)
                    .cast(),
            );
            let q10 = unsafe {
                _mm512_loadu_si512(q.as_ptr().add(step * 320usize + 0usize).cast())
            };
            let q11 = unsafe {
                _mm512_loadu_si512(q.as_ptr().add(step * 320usize + 64usize).cast())
            };
            let q12 = unsafe {
                _mm512_loadu_si512(q.as_ptr().add(step * 320usize + 128usize).cast())
            };
            let q13 = unsafe {
                _mm512_loadu_si512(q.as_ptr().add(step * 320usize + 192usize).cast())
            };
            let q14 = unsafe {
                _mm512_loadu_si512(q.as_ptr().add(step * 320usize + 256usize).cast())
            };
            let codes2 = unsafe {
                _mm512_loadu_si512(
                    weights.as_ptr().add(base0 + step * 64usize + 0usize).cast(),
                )
            };
            let four2 = ::trilut_kernels::lanes::zmm::map(
                codes2,
                &::trilut_kernels::lanes::base3::FIRST_FOUR,
            );
            let last2 = ::trilut_kernels::lanes::zmm::map(
                codes2,
                &::trilut_kernels::lanes::base3::LAST,
            );
            let field8 = _mm512_and_si512(four2, _mm512_set1_epi8(3u8 as i8));
            sum0 = _mm512_dpbusd_epi32(sum0, field8, q10);
            let field9 = _mm512_and_si512(four2, _mm512_set1_epi8(12u8 as i8));
            sum1 = _mm512_dpbusd_epi32(sum1, field9, q11);
            let field10 = _mm512_and_si512(four2, _mm512_set1_epi8(48u8 as i8));
            sum2 = _mm512_dpbusd_epi32(sum2, field10, q12);
            let field11 = _mm512_and_si512(four2, _mm512_set1_epi8(192u8 as i8));
            sum3 = _mm512_dpbusd_epi32(sum3, field11, q13);
            sum4 = _mm512_dpbusd_epi32(sum4, last2, q14);
            step += 1;
        }
        if blocks % 2 == 1 {
            while step < steps + 1 {
                let q15 = unsafe {
                    _mm512_loadu_si512(q.as_ptr().add(step * 320usize + 0usize).cast())
                };
                let q16 = unsafe {
                    _mm512_loadu_si512(q.as_ptr().add(step * 320usize + 64usize).cast())
                };
                let q17 = unsafe {
                    _mm512_loadu_si512(q.as_ptr().add(step * 320usize + 128usize).cast())
                };
                let q18 = unsafe {
                    _mm512_loadu_si512(q.as_ptr().add(step * 320usize + 192usize).cast())
                };
                let q19 = unsafe {
                    _mm512_loadu_si512(q.as_ptr().add(step * 320usize + 256usize).cast())
                };
                let codes3 = _mm512_zextsi256_si512(unsafe {
                    _mm256_loadu_si256(
                        weights.as_ptr().add(base0 + step * 64usize + 0usize).cast(),
                    )
                });
                let four3 = ::trilut_kernels::lanes::zmm::map(
                    codes3,
                    &::trilut_kernels::lanes::base3::FIRST_FOUR,
                );
                let last3 = ::trilut_kernels::lanes::zmm::map(
                    codes3,
                    &::trilut_kernels::lanes::base3::LAST,
                );
                let field12 = _mm512_and_si512(four3, _mm512_set1_epi8(3u8 as i8));
                sum0 = _mm512_dpbusd_epi32(sum0, field12, q15);
                let field13 = _mm512_and_si512(four3, _mm512_set1_epi8(12u8 as i8));
                sum1 = _mm512_dpbusd_epi32(sum1, field13, q16);
                let field14 = _mm512_and_si512(four3, _mm512_set1_epi8(48u8 as i8));
                sum2 = _mm512_dpbusd_epi32(sum2, field14, q17);
                let field15 = _mm512_and_si512(four3, _mm512_set1_epi8(192u8 as i8));
                sum3 = _mm512_dpbusd_epi32(sum3, field15, q18);
                sum4 = _mm512_dpbusd_epi32(sum4, last3, q19);
                step += 1;
            }
        }
        let exact0 = _mm512_srai_epi32::<2u32>(sum1);
        let total0 = _mm512_add_epi32(sum0, exact0);
        let exact1 = _mm512_srai_epi32::<4u32>(sum2);
        let total1 = _mm512_add_epi32(total0, exact1);
        let exact2 = _mm512_srai_epi32::<6u32>(sum3);
        let total2 = _mm512_add_epi32(total1, exact2);
        let total3 = _mm512_add_epi32(total2, sum4);
        call.out[row - call.rows.start + 0usize] = _mm512_reduce_add_epi32(total3)
            + (-call.sum);
        row += 1usize;
    }
}
