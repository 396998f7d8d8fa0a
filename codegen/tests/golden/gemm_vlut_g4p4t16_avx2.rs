/// Exact `sums = T q` for the rows of a panel and 16 tokens, isa `avx2`.
///
/// Panel: an index byte per row and 4 inputs, 4 groups of a row side by side. Token tile: 4 inputs of a group, 16 int8 tokens each.
///
/// int16 bound, group sums: 60 adds of at most 512 reach 30720, then the lanes are widened to int32.
///
/// Memory: `Gemm::check` compares the slices with the panel's form, its rows and the tile; every offset below is inside what it accepts.
#[target_feature(enable = "avx2,bmi1,bmi2,f16c")]
#[allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    unused_variables,
    reason = "generated; the safety of every load is argued once, in the documentation"
)]
fn gemm_vlut_g4p4t16_avx2(call: &mut ::trilut_kernels::Gemm<'_>) {
    use ::core::arch::x86_64::*;
    let (weights, q, groups) = call
        .check(
            ::trilut_kernels::PanelForm::Indices {
                group: 4usize,
                tables: 4usize,
            },
            16usize,
        );
    let (rows, token_sums) = (call.rows, call.token_sums);
    let (scratch, sums) = (&mut *call.scratch, &mut *call.sums);
    let partial = 7984usize;
    scratch[partial..][..rows * 16usize].fill(0);
    sums[..rows * 16usize].fill(0);
    let passes = groups / 4usize;
    let mut since = 0;
    for pass in 0..passes {
        for table in 0..4usize {
            let inputs = (pass * 16usize + table * 4usize) * 16usize;
            let table = table * 81usize * 16usize;
            let q0 = _mm256_cvtepi8_epi16(unsafe {
                _mm_loadu_si128(q.as_ptr().add(inputs + 0usize).cast())
            });
            let q1 = _mm256_cvtepi8_epi16(unsafe {
                _mm_loadu_si128(q.as_ptr().add(inputs + 16usize).cast())
            });
            let q2 = _mm256_cvtepi8_epi16(unsafe {
                _mm_loadu_si128(q.as_ptr().add(inputs + 32usize).cast())
            });
            let q3 = _mm256_cvtepi8_epi16(unsafe {
                _mm_loadu_si128(q.as_ptr().add(inputs + 48usize).cast())
            });
            let least0 = _mm256_setzero_si256();
            let least1 = _mm256_sub_epi16(least0, q0);
            let least2 = _mm256_sub_epi16(least1, q1);
            let least3 = _mm256_sub_epi16(least2, q2);
            let least4 = _mm256_sub_epi16(least3, q3);
            unsafe {
                _mm256_storeu_si256(
                    scratch.as_mut_ptr().add(table + 0usize).cast(),
                    least4,
                )
            };
            for entry in 0..1usize {
                let entry0 = unsafe {
                    _mm256_loadu_si256(
                        scratch
                            .as_ptr()
                            .add(table + (entry + 0usize) * 16usize + 0usize)
                            .cast(),
                    )
                };
                let entry1 = _mm256_add_epi16(entry0, q0);
                unsafe {
                    _mm256_storeu_si256(
                        scratch
                            .as_mut_ptr()
                            .add(table + (entry + 1usize) * 16usize + 0usize)
                            .cast(),
                        entry1,
                    )
                };
                let entry2 = _mm256_add_epi16(entry1, q0);
                unsafe {
                    _mm256_storeu_si256(
                        scratch
                            .as_mut_ptr()
                            .add(table + (entry + 2usize) * 16usize + 0usize)
                            .cast(),
                        entry2,
                    )
                };
            }
            for entry in 0..3usize {
                let entry3 = unsafe {
                    _mm256_loadu_si256(
                        scratch
                            .as_ptr()
                            .add(table + (entry + 0usize) * 16usize + 0usize)
                            .cast(),
                    )
                };
                let entry4 = _mm256_add_epi16(entry3, q1);
                unsafe {
                    _mm256_storeu_si256(
                        scratch
                            .as_mut_ptr()
                            .add(table + (entry + 3usize) * 16usize + 0usize)
                            .cast(),
                        entry4,
                    )
                };
                let entry5 = _mm256_add_epi16(entry4, q1);
                unsafe {
                    _mm256_storeu_si256(
                        scratch
                            .as_mut_ptr()
                            .add(table + (entry + 6usize) * 16usize + 0usize)
                            .cast(),
                        entry5,
                    )
                };
            }
            for entry in 0..9usize {
                let entry6 = unsafe {
                    _mm256_loadu_si256(
                        scratch
                            .as_ptr()
                            .add(table + (entry + 0usize) * 16usize + 0usize)
                            .cast(),
                    )
                };
                let entry7 = _mm256_add_epi16(entry6, q2);
                unsafe {
                    _mm256_storeu_si256(
                        scratch
                            .as_mut_ptr()
                            .add(table + (entry + 9usize) * 16usize + 0usize)
                            .cast(),
                        entry7,
                    )
                };
                let entry8 = _mm256_add_epi16(entry7, q2);
                unsafe {
                    _mm256_storeu_si256(
                        scratch
                            .as_mut_ptr()
                            .add(table + (entry + 18usize) * 16usize + 0usize)
                            .cast(),
                        entry8,
                    )
                };
            }
            for entry in 0..27usize {
                let entry9 = unsafe {
                    _mm256_loadu_si256(
                        scratch
                            .as_ptr()
                            .add(table + (entry + 0usize) * 16usize + 0usize)
                            .cast(),
                    )
                };
                let entry10 = _mm256_add_epi16(entry9, q3);
                unsafe {
                    _mm256_storeu_si256(
                        scratch
                            .as_mut_ptr()
                            .add(table + (entry + 27usize) * 16usize + 0usize)
                            .cast(),
                        entry10,
                    )
                };
                let entry11 = _mm256_add_epi16(entry10, q3);
                unsafe {
                    _mm256_storeu_si256(
                        scratch
                            .as_mut_ptr()
                            .add(table + (entry + 54usize) * 16usize + 0usize)
                            .cast(),
                        entry11,
                    )
                };
            }
        }
        let indices = weights[pass * rows * 4usize..][..rows * 4usize]
            .as_chunks::<4usize>()
            .0;
        for (row, words) in indices.chunks_exact(1usize).enumerate() {
            let mut partial0 = unsafe {
                _mm256_loadu_si256(
                    scratch.as_ptr().add(partial + row * 16usize + 0usize).cast(),
                )
            };
            let word: u64 = u32::from_le_bytes(words[0usize]).into();
            let entry = 0usize + (word.rotate_right(60u32) & 4080u64) as usize;
            let entry12 = unsafe {
                _mm256_loadu_si256(scratch.as_ptr().add(entry + 0usize).cast())
            };
            partial0 = _mm256_add_epi16(partial0, entry12);
            let entry = 1296usize + (word.rotate_right(4u32) & 4080u64) as usize;
            let entry13 = unsafe {
                _mm256_loadu_si256(scratch.as_ptr().add(entry + 0usize).cast())
            };
            partial0 = _mm256_add_epi16(partial0, entry13);
            let entry = 2592usize + (word.rotate_right(12u32) & 4080u64) as usize;
            let entry14 = unsafe {
                _mm256_loadu_si256(scratch.as_ptr().add(entry + 0usize).cast())
            };
            partial0 = _mm256_add_epi16(partial0, entry14);
            let entry = 3888usize + (word.rotate_right(20u32) & 4080u64) as usize;
            let entry15 = unsafe {
                _mm256_loadu_si256(scratch.as_ptr().add(entry + 0usize).cast())
            };
            partial0 = _mm256_add_epi16(partial0, entry15);
            unsafe {
                _mm256_storeu_si256(
                    scratch.as_mut_ptr().add(partial + row * 16usize + 0usize).cast(),
                    partial0,
                )
            };
        }
        since += 1;
        if since == 15usize || pass + 1 == passes {
            for row in 0..rows {
                let narrow0 = unsafe {
                    _mm256_loadu_si256(
                        scratch.as_ptr().add(partial + row * 16usize + 0usize).cast(),
                    )
                };
                let wide0 = unsafe {
                    _mm256_loadu_si256(sums.as_ptr().add(row * 16usize + 0usize).cast())
                };
                let wide1 = _mm256_add_epi32(
                    wide0,
                    _mm256_cvtepi16_epi32(_mm256_castsi256_si128(narrow0)),
                );
                unsafe {
                    _mm256_storeu_si256(
                        sums.as_mut_ptr().add(row * 16usize + 0usize).cast(),
                        wide1,
                    )
                };
                let wide2 = unsafe {
                    _mm256_loadu_si256(sums.as_ptr().add(row * 16usize + 8usize).cast())
                };
                let wide3 = _mm256_add_epi32(
                    wide2,
                    _mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(narrow0)),
                );
                unsafe {
                    _mm256_storeu_si256(
                        sums.as_mut_ptr().add(row * 16usize + 8usize).cast(),
                        wide3,
                    )
                };
                let zero0 = _mm256_setzero_si256();
                unsafe {
                    _mm256_storeu_si256(
                        scratch
                            .as_mut_ptr()
                            .add(partial + row * 16usize + 0usize)
                            .cast(),
                        zero0,
                    )
                };
            }
            since = 0;
        }
    }
}
