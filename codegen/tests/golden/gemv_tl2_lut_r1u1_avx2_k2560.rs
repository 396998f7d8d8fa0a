/// Exact `out = T q` for M x 2560, format `tl2`, isa `avx2`.
///
/// Weights: groups of 32 rows, a byte per row and 6 weights: two triple indices; a sign bit per triple; a tail of pairs.
///
/// int16 bound, triple sums or their complements: 84 adds of at most 385 reach 32340, then the lanes are widened to int32.
/// int16 bound, pair sums of the tail: 4 adds of at most 256 reach 1024, then the lanes are widened to int32.
///
/// Memory: `Gemv::check` compares both slices with the shape; every offset below is inside the layout of that shape.
#[target_feature(enable = "avx2,bmi1,bmi2,f16c")]
#[allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    reason = "generated; the safety of every load is argued once, in the documentation"
)]
fn gemv_tl2_lut_r1u1_avx2_k2560(call: &mut ::trilut_kernels::Gemv<'_>) {
    use ::core::arch::x86_64::*;
    let (weights, q) = call
        .check(
            ::trilut_kernels::Layout::Tl2,
            ::trilut_kernels::Activation::TripleTables,
        );
    assert_eq!(call.shape.k, 2560usize);
    let k = 2560usize;
    let triple_steps = k / 6;
    let pair_steps = (k - triple_steps * 6).div_ceil(4);
    let stride = triple_steps * 40 + pair_steps * 32;
    let end = call.rows.end;
    let mut row = call.rows.start;
    while row < end {
        let base0 = (row / 32 + 0usize) * stride;
        let mut sum0 = _mm256_setzero_si256();
        let mut sum1 = _mm256_setzero_si256();
        let mut sum2 = _mm256_setzero_si256();
        let mut sum3 = _mm256_setzero_si256();
        let steps = triple_steps;
        let mut step = 0;
        while step < steps {
            let bank_end = usize::min(step + 42usize, steps);
            let mut bank0 = _mm256_setzero_si256();
            let mut bank1 = _mm256_setzero_si256();
            while step < bank_end {
                let indices0 = unsafe {
                    _mm256_loadu_si256(
                        weights.as_ptr().add(base0 + 0 + step * 32 + 0usize).cast(),
                    )
                };
                let low0 = unsafe {
                    _mm256_broadcastsi128_si256(
                        _mm_loadu_si128(q.as_ptr().add(0 + step * 64 + 0usize).cast()),
                    )
                };
                let high0 = unsafe {
                    _mm256_broadcastsi128_si256(
                        _mm_loadu_si128(q.as_ptr().add(0 + step * 64 + 16usize).cast()),
                    )
                };
                let index0 = _mm256_and_si256(indices0, _mm256_set1_epi8(15u8 as i8));
                let entry0 = _mm256_shuffle_epi8(low0, index0);
                let entry1 = _mm256_shuffle_epi8(high0, index0);
                let sign0 = ::trilut_kernels::lanes::avx2::expand_bits(unsafe {
                    weights
                        .as_ptr()
                        .add(base0 + triple_steps * 32 + step * 8 + 0usize)
                        .cast::<i32>()
                        .read_unaligned()
                });
                let entry2 = _mm256_xor_si256(entry0, sign0);
                let entry3 = _mm256_xor_si256(entry1, sign0);
                let sums0 = _mm256_unpacklo_epi8(entry2, entry3);
                bank0 = _mm256_add_epi16(bank0, sums0);
                let sums1 = _mm256_unpackhi_epi8(entry2, entry3);
                bank1 = _mm256_add_epi16(bank1, sums1);
                let low1 = unsafe {
                    _mm256_broadcastsi128_si256(
                        _mm_loadu_si128(q.as_ptr().add(0 + step * 64 + 32usize).cast()),
                    )
                };
                let high1 = unsafe {
                    _mm256_broadcastsi128_si256(
                        _mm_loadu_si128(q.as_ptr().add(0 + step * 64 + 48usize).cast()),
                    )
                };
                let index1 = _mm256_and_si256(
                    _mm256_srli_epi16::<4i32>(indices0),
                    _mm256_set1_epi8(15u8 as i8),
                );
                let entry4 = _mm256_shuffle_epi8(low1, index1);
                let entry5 = _mm256_shuffle_epi8(high1, index1);
                let sign1 = ::trilut_kernels::lanes::avx2::expand_bits(unsafe {
                    weights
                        .as_ptr()
                        .add(base0 + triple_steps * 32 + step * 8 + 4usize)
                        .cast::<i32>()
                        .read_unaligned()
                });
                let entry6 = _mm256_xor_si256(entry4, sign1);
                let entry7 = _mm256_xor_si256(entry5, sign1);
                let sums2 = _mm256_unpacklo_epi8(entry6, entry7);
                bank0 = _mm256_add_epi16(bank0, sums2);
                let sums3 = _mm256_unpackhi_epi8(entry6, entry7);
                bank1 = _mm256_add_epi16(bank1, sums3);
                step += 1;
            }
            sum0 = _mm256_add_epi32(
                sum0,
                _mm256_cvtepi16_epi32(_mm256_castsi256_si128(bank0)),
            );
            sum1 = _mm256_add_epi32(
                sum1,
                _mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(bank0)),
            );
            sum2 = _mm256_add_epi32(
                sum2,
                _mm256_cvtepi16_epi32(_mm256_castsi256_si128(bank1)),
            );
            sum3 = _mm256_add_epi32(
                sum3,
                _mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(bank1)),
            );
        }
        let steps = pair_steps;
        let mut step = 0;
        while step < steps {
            let bank_end = usize::min(step + 2usize, steps);
            let mut bank2 = _mm256_setzero_si256();
            let mut bank3 = _mm256_setzero_si256();
            while step < bank_end {
                let indices1 = unsafe {
                    _mm256_loadu_si256(
                        weights
                            .as_ptr()
                            .add(base0 + triple_steps * 40 + step * 32 + 0usize)
                            .cast(),
                    )
                };
                let low2 = unsafe {
                    _mm256_broadcastsi128_si256(
                        _mm_loadu_si128(
                            q.as_ptr().add(triple_steps * 64 + step * 64 + 0usize).cast(),
                        ),
                    )
                };
                let high2 = unsafe {
                    _mm256_broadcastsi128_si256(
                        _mm_loadu_si128(
                            q
                                .as_ptr()
                                .add(triple_steps * 64 + step * 64 + 16usize)
                                .cast(),
                        ),
                    )
                };
                let index2 = _mm256_and_si256(indices1, _mm256_set1_epi8(15u8 as i8));
                let entry8 = _mm256_shuffle_epi8(low2, index2);
                let entry9 = _mm256_shuffle_epi8(high2, index2);
                let sums4 = _mm256_unpacklo_epi8(entry8, entry9);
                bank2 = _mm256_add_epi16(bank2, sums4);
                let sums5 = _mm256_unpackhi_epi8(entry8, entry9);
                bank3 = _mm256_add_epi16(bank3, sums5);
                let low3 = unsafe {
                    _mm256_broadcastsi128_si256(
                        _mm_loadu_si128(
                            q
                                .as_ptr()
                                .add(triple_steps * 64 + step * 64 + 32usize)
                                .cast(),
                        ),
                    )
                };
                let high3 = unsafe {
                    _mm256_broadcastsi128_si256(
                        _mm_loadu_si128(
                            q
                                .as_ptr()
                                .add(triple_steps * 64 + step * 64 + 48usize)
                                .cast(),
                        ),
                    )
                };
                let index3 = _mm256_and_si256(
                    _mm256_srli_epi16::<4i32>(indices1),
                    _mm256_set1_epi8(15u8 as i8),
                );
                let entry10 = _mm256_shuffle_epi8(low3, index3);
                let entry11 = _mm256_shuffle_epi8(high3, index3);
                let sums6 = _mm256_unpacklo_epi8(entry10, entry11);
                bank2 = _mm256_add_epi16(bank2, sums6);
                let sums7 = _mm256_unpackhi_epi8(entry10, entry11);
                bank3 = _mm256_add_epi16(bank3, sums7);
                step += 1;
            }
            sum0 = _mm256_add_epi32(
                sum0,
                _mm256_cvtepi16_epi32(_mm256_castsi256_si128(bank2)),
            );
            sum1 = _mm256_add_epi32(
                sum1,
                _mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(bank2)),
            );
            sum2 = _mm256_add_epi32(
                sum2,
                _mm256_cvtepi16_epi32(_mm256_castsi256_si128(bank3)),
            );
            sum3 = _mm256_add_epi32(
                sum3,
                _mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(bank3)),
            );
        }
        let mut sums = [0i32; 32usize];
        unsafe { _mm256_storeu_si256(sums.as_mut_ptr().add(0usize).cast(), sum0) };
        unsafe { _mm256_storeu_si256(sums.as_mut_ptr().add(16usize).cast(), sum1) };
        unsafe { _mm256_storeu_si256(sums.as_mut_ptr().add(8usize).cast(), sum2) };
        unsafe { _mm256_storeu_si256(sums.as_mut_ptr().add(24usize).cast(), sum3) };
        let negatives = &weights[call.shape.m.div_ceil(32) * stride + row * 4..];
        for (sum, count) in sums.iter_mut().zip(negatives.chunks_exact(4)) {
            let count = i32::from_le_bytes([count[0], count[1], count[2], count[3]]);
            *sum = sum.wrapping_add(count);
        }
        let first = row - call.rows.start;
        let count = usize::min(32usize, end - row);
        call.out[first..first + count].copy_from_slice(&sums[..count]);
        row += 32usize;
    }
}
