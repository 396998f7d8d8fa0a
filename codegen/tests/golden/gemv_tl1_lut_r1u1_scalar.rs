/// Exact `out = T q` for M x K, format `tl1`, isa `scalar`.
///
/// Weights: groups of 32 rows, a byte per row and 4 weights: two pair indices.
///
/// int16 bound, pair sums: 126 adds of at most 256 reach 32256, then the lanes are widened to int32.
///
/// Memory: `Gemv::check` compares both slices with the shape; every offset below is inside the layout of that shape.
#[allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    reason = "generated; the safety of every load is argued once, in the documentation"
)]
fn gemv_tl1_lut_r1u1_scalar(call: &mut ::trilut_kernels::Gemv<'_>) {
    use ::trilut_kernels::lanes::portable as v;
    let (weights, q) = call
        .check(::trilut_kernels::Layout::Tl1, ::trilut_kernels::Activation::PairTables);
    let k = call.shape.k;
    let stride = k.div_ceil(4) * 32;
    let end = call.rows.end;
    let mut row = call.rows.start;
    while row < end {
        let base0 = (row / 32 + 0usize) * stride;
        let mut sum0 = [0i32; 4usize];
        let mut sum1 = [0i32; 4usize];
        let mut sum2 = [0i32; 4usize];
        let mut sum3 = [0i32; 4usize];
        let mut sum4 = [0i32; 4usize];
        let mut sum5 = [0i32; 4usize];
        let mut sum6 = [0i32; 4usize];
        let mut sum7 = [0i32; 4usize];
        let steps = k.div_ceil(4);
        let mut step = 0;
        while step < steps {
            let bank_end = usize::min(step + 63usize, steps);
            let mut bank0 = [0i16; 8usize];
            let mut bank1 = [0i16; 8usize];
            let mut bank2 = [0i16; 8usize];
            let mut bank3 = [0i16; 8usize];
            while step < bank_end {
                let indices0 = v::load::<
                    16usize,
                >(weights, base0 + 0 + step * 32 + 0usize);
                let indices1 = v::load::<
                    16usize,
                >(weights, base0 + 0 + step * 32 + 16usize);
                let low0 = v::table::<16usize>(q, 0 + step * 64 + 0usize);
                let high0 = v::table::<16usize>(q, 0 + step * 64 + 16usize);
                let index0 = v::field::<16usize>(indices0, 0u32, 15u8);
                let entry0 = v::lookup::<16usize>(low0, index0);
                let entry1 = v::lookup::<16usize>(high0, index0);
                let sums0 = v::interleave::<16usize, 8usize>(entry0, entry1, false);
                bank0 = v::add_i16::<8usize>(bank0, sums0);
                let sums1 = v::interleave::<16usize, 8usize>(entry0, entry1, true);
                bank1 = v::add_i16::<8usize>(bank1, sums1);
                let index1 = v::field::<16usize>(indices1, 0u32, 15u8);
                let entry2 = v::lookup::<16usize>(low0, index1);
                let entry3 = v::lookup::<16usize>(high0, index1);
                let sums2 = v::interleave::<16usize, 8usize>(entry2, entry3, false);
                bank2 = v::add_i16::<8usize>(bank2, sums2);
                let sums3 = v::interleave::<16usize, 8usize>(entry2, entry3, true);
                bank3 = v::add_i16::<8usize>(bank3, sums3);
                let low1 = v::table::<16usize>(q, 0 + step * 64 + 32usize);
                let high1 = v::table::<16usize>(q, 0 + step * 64 + 48usize);
                let index2 = v::field::<16usize>(indices0, 4u32, 15u8);
                let entry4 = v::lookup::<16usize>(low1, index2);
                let entry5 = v::lookup::<16usize>(high1, index2);
                let sums4 = v::interleave::<16usize, 8usize>(entry4, entry5, false);
                bank0 = v::add_i16::<8usize>(bank0, sums4);
                let sums5 = v::interleave::<16usize, 8usize>(entry4, entry5, true);
                bank1 = v::add_i16::<8usize>(bank1, sums5);
                let index3 = v::field::<16usize>(indices1, 4u32, 15u8);
                let entry6 = v::lookup::<16usize>(low1, index3);
                let entry7 = v::lookup::<16usize>(high1, index3);
                let sums6 = v::interleave::<16usize, 8usize>(entry6, entry7, false);
                bank2 = v::add_i16::<8usize>(bank2, sums6);
                let sums7 = v::interleave::<16usize, 8usize>(entry6, entry7, true);
                bank3 = v::add_i16::<8usize>(bank3, sums7);
                step += 1;
            }
            sum0 = v::widen_half::<8usize, 4usize>(sum0, bank0, false);
            sum1 = v::widen_half::<8usize, 4usize>(sum1, bank0, true);
            sum2 = v::widen_half::<8usize, 4usize>(sum2, bank1, false);
            sum3 = v::widen_half::<8usize, 4usize>(sum3, bank1, true);
            sum4 = v::widen_half::<8usize, 4usize>(sum4, bank2, false);
            sum5 = v::widen_half::<8usize, 4usize>(sum5, bank2, true);
            sum6 = v::widen_half::<8usize, 4usize>(sum6, bank3, false);
            sum7 = v::widen_half::<8usize, 4usize>(sum7, bank3, true);
        }
        let mut sums = [0i32; 32usize];
        v::store_rows(&mut sums[0usize..], &sum0);
        v::store_rows(&mut sums[4usize..], &sum1);
        v::store_rows(&mut sums[8usize..], &sum2);
        v::store_rows(&mut sums[12usize..], &sum3);
        v::store_rows(&mut sums[16usize..], &sum4);
        v::store_rows(&mut sums[20usize..], &sum5);
        v::store_rows(&mut sums[24usize..], &sum6);
        v::store_rows(&mut sums[28usize..], &sum7);
        let first = row - call.rows.start;
        let count = usize::min(32usize, end - row);
        call.out[first..first + count].copy_from_slice(&sums[..count]);
        row += 32usize;
    }
}
