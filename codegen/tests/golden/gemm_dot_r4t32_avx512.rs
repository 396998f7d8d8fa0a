/// Exact `sums = T q` for the rows of a panel and 32 tokens, isa `avx512`.
///
/// Panel: rows of code bytes t + 1. Token tile: per 4 inputs 32 tokens of 4 int8 each.
///
/// No int16 sums: products go straight to int32.
///
/// Memory: `Gemm::check` compares the slices with the panel's form, its rows and the tile; every offset below is inside what it accepts.
#[target_feature(enable = "avx2,bmi1,bmi2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
#[allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    unused_variables,
    reason = "generated; the safety of every load is argued once, in the documentation"
)]
fn gemm_dot_r4t32_avx512(call: &mut ::trilut_kernels::Gemm<'_>) {
    use ::core::arch::x86_64::*;
    let (weights, q, groups) = call.check(::trilut_kernels::PanelForm::Codes, 32usize);
    let (rows, token_sums) = (call.rows, call.token_sums);
    let (scratch, sums) = (&mut *call.scratch, &mut *call.sums);
    let stride = groups * 4;
    let mut row = 0;
    while row + 4usize <= rows {
        let base0 = (row + 0usize) * stride;
        let base1 = (row + 1usize) * stride;
        let base2 = (row + 2usize) * stride;
        let base3 = (row + 3usize) * stride;
        let mut sum0 = _mm512_setzero_si512();
        let mut sum1 = _mm512_setzero_si512();
        let mut sum2 = _mm512_setzero_si512();
        let mut sum3 = _mm512_setzero_si512();
        let mut sum4 = _mm512_setzero_si512();
        let mut sum5 = _mm512_setzero_si512();
        let mut sum6 = _mm512_setzero_si512();
        let mut sum7 = _mm512_setzero_si512();
        let mut step = 0;
        while step < groups {
            let q0 = unsafe {
                _mm512_loadu_si512(q.as_ptr().add(step * 128usize + 0usize).cast())
            };
            let q1 = unsafe {
                _mm512_loadu_si512(q.as_ptr().add(step * 128usize + 64usize).cast())
            };
            let codes0 = _mm512_set1_epi32(unsafe {
                weights.as_ptr().add(base0 + step * 4).cast::<i32>().read_unaligned()
            });
            sum0 = _mm512_dpbusd_epi32(sum0, codes0, q0);
            sum1 = _mm512_dpbusd_epi32(sum1, codes0, q1);
            let codes1 = _mm512_set1_epi32(unsafe {
                weights.as_ptr().add(base1 + step * 4).cast::<i32>().read_unaligned()
            });
            sum2 = _mm512_dpbusd_epi32(sum2, codes1, q0);
            sum3 = _mm512_dpbusd_epi32(sum3, codes1, q1);
            let codes2 = _mm512_set1_epi32(unsafe {
                weights.as_ptr().add(base2 + step * 4).cast::<i32>().read_unaligned()
            });
            sum4 = _mm512_dpbusd_epi32(sum4, codes2, q0);
            sum5 = _mm512_dpbusd_epi32(sum5, codes2, q1);
            let codes3 = _mm512_set1_epi32(unsafe {
                weights.as_ptr().add(base3 + step * 4).cast::<i32>().read_unaligned()
            });
            sum6 = _mm512_dpbusd_epi32(sum6, codes3, q0);
            sum7 = _mm512_dpbusd_epi32(sum7, codes3, q1);
            step += 1;
        }
        let extra0 = unsafe {
            _mm512_loadu_si512(token_sums.as_ptr().add(0usize).cast())
        };
        let exact0 = _mm512_sub_epi32(sum0, extra0);
        unsafe {
            _mm512_storeu_si512(
                sums.as_mut_ptr().add((row + 0usize) * 32usize + 0usize).cast(),
                exact0,
            )
        };
        let extra1 = unsafe {
            _mm512_loadu_si512(token_sums.as_ptr().add(16usize).cast())
        };
        let exact1 = _mm512_sub_epi32(sum1, extra1);
        unsafe {
            _mm512_storeu_si512(
                sums.as_mut_ptr().add((row + 0usize) * 32usize + 16usize).cast(),
                exact1,
            )
        };
        let extra2 = unsafe {
            _mm512_loadu_si512(token_sums.as_ptr().add(0usize).cast())
        };
        let exact2 = _mm512_sub_epi32(sum2, extra2);
        unsafe {
            _mm512_storeu_si512(
                sums.as_mut_ptr().add((row + 1usize) * 32usize + 0usize).cast(),
                exact2,
            )
        };
        let extra3 = unsafe {
            _mm512_loadu_si512(token_sums.as_ptr().add(16usize).cast())
        };
        let exact3 = _mm512_sub_epi32(sum3, extra3);
        unsafe {
            _mm512_storeu_si512(
                sums.as_mut_ptr().add((row + 1usize) * 32usize + 16usize).cast(),
                exact3,
            )
        };
        let extra4 = unsafe {
            _mm512_loadu_si512(token_sums.as_ptr().add(0usize).cast())
        };
        let exact4 = _mm512_sub_epi32(sum4, extra4);
        unsafe {
            _mm512_storeu_si512(
                sums.as_mut_ptr().add((row + 2usize) * 32usize + 0usize).cast(),
                exact4,
            )
        };
        let extra5 = unsafe {
            _mm512_loadu_si512(token_sums.as_ptr().add(16usize).cast())
        };
        let exact5 = _mm512_sub_epi32(sum5, extra5);
        unsafe {
            _mm512_storeu_si512(
                sums.as_mut_ptr().add((row + 2usize) * 32usize + 16usize).cast(),
                exact5,
            )
        };
        let extra6 = unsafe {
            _mm512_loadu_si512(token_sums.as_ptr().add(0usize).cast())
        };
        let exact6 = _mm512_sub_epi32(sum6, extra6);
        unsafe {
            _mm512_storeu_si512(
                sums.as_mut_ptr().add((row + 3usize) * 32usize + 0usize).cast(),
                exact6,
            )
        };
        let extra7 = unsafe {
            _mm512_loadu_si512(token_sums.as_ptr().add(16usize).cast())
        };
        let exact7 = _mm512_sub_epi32(sum7, extra7);
        unsafe {
            _mm512_storeu_si512(
                sums.as_mut_ptr().add((row + 3usize) * 32usize + 16usize).cast(),
                exact7,
            )
        };
        row += 4usize;
    }
    while row < rows {
        let base0 = (row + 0usize) * stride;
        let mut sum8 = _mm512_setzero_si512();
        let mut sum9 = _mm512_setzero_si512();
        let mut step = 0;
        while step < groups {
            let q2 = unsafe {
                _mm512_loadu_si512(q.as_ptr().add(step * 128usize + 0usize).cast())
            };
            let q3 = unsafe {
                _mm512_loadu_si512(q.as_ptr().add(step * 128usize + 64usize).cast())
            };
            let codes4 = _mm512_set1_epi32(unsafe {
                weights.as_ptr().add(base0 + step * 4).cast::<i32>().read_unaligned()
            });
            sum8 = _mm512_dpbusd_epi32(sum8, codes4, q2);
            sum9 = _mm512_dpbusd_epi32(sum9, codes4, q3);
            step += 1;
        }
        let extra8 = unsafe {
            _mm512_loadu_si512(token_sums.as_ptr().add(0usize).cast())
        };
        let exact8 = _mm512_sub_epi32(sum8, extra8);
        unsafe {
            _mm512_storeu_si512(
                sums.as_mut_ptr().add((row + 0usize) * 32usize + 0usize).cast(),
                exact8,
            )
        };
        let extra9 = unsafe {
            _mm512_loadu_si512(token_sums.as_ptr().add(16usize).cast())
        };
        let exact9 = _mm512_sub_epi32(sum9, extra9);
        unsafe {
            _mm512_storeu_si512(
                sums.as_mut_ptr().add((row + 0usize) * 32usize + 16usize).cast(),
                exact9,
            )
        };
        row += 1usize;
    }
}
