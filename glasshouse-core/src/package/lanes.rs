//! SHA-384 of several equally long pieces at once, one piece per SIMD lane.
//!
//! SHA-512's rounds depend on each other, so one stream cannot fill a vector unit; independent leaves can (S. Gueron,
//! V. Krasnov: "Simultaneous Hashing of Multiple Messages", 2012). No crate of ours offers that, and at one stream's
//! speed hashing would take several times as long as sealing. The same Rust code, straight from FIPS 180-4 section 6.4,
//! is compiled for AVX-512 (8 lanes) and AVX2 (4 lanes); elsewhere, and for what is left over, `sha2` does it.
#![allow(unsafe_code)] // calling code compiled for a CPU feature that was found at run time

use crate::transcript::sha384;

/// Appends SHA-384 of every piece of `piece_bytes` (a multiple of 128), the last possibly shorter.
pub(super) fn sha384_pieces(text: &[u8], piece_bytes: usize, out: &mut Vec<u8>) {
    let whole = text.len() / piece_bytes * piece_bytes;
    let (mut pieces, last) = text.split_at(whole);
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
            // SAFETY: the features that `avx512` is compiled for were just found on this CPU.
            pieces = in_groups(pieces, piece_bytes, out, |group| unsafe { avx512(group) });
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the feature that `avx2` is compiled for was just found on this CPU.
            pieces = in_groups(pieces, piece_bytes, out, |group| unsafe { avx2(group) });
        }
    }
    for piece in pieces.chunks(piece_bytes).chain(Some(last).filter(|last| !last.is_empty())) {
        out.extend_from_slice(sha384(piece).as_ref());
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn avx512(pieces: [&[u8]; 8]) -> [[u8; 48]; 8] {
    sha384_lanes(pieces)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(pieces: [&[u8]; 4]) -> [[u8; 48]; 4] {
    sha384_lanes(pieces)
}

/// Hashes as many groups of `N` pieces as there are; gives the rest.
#[cfg(target_arch = "x86_64")]
fn in_groups<'t, const N: usize>(
    text: &'t [u8],
    piece_bytes: usize,
    out: &mut Vec<u8>,
    hash: impl Fn([&[u8]; N]) -> [[u8; 48]; N],
) -> &'t [u8] {
    let mut groups = text.chunks_exact(piece_bytes * N);
    for group in groups.by_ref() {
        let mut pieces = group.chunks_exact(piece_bytes);
        let digests = hash(std::array::from_fn(|_| pieces.next().unwrap_or_default()));
        out.extend_from_slice(digests.as_flattened());
    }
    groups.remainder()
}

/// One 64-bit word of every lane.
type Lanes<const N: usize> = [u64; N];

/// SHA-384 of `N` pieces of one length, a multiple of 128. Inlined, so that it is compiled for its caller's features.
#[inline(always)]
fn sha384_lanes<const N: usize>(pieces: [&[u8]; N]) -> [[u8; 48]; N] {
    let blocks: [&[[u8; 128]]; N] = pieces.map(|piece| piece.as_chunks().0);
    let count = blocks.iter().map(|blocks| blocks.len()).min().unwrap_or_default();
    let mut state: [Lanes<N>; 8] = INITIAL.map(|word| [word; N]);
    for block in 0..count {
        let mut words = [[0; N]; 16];
        for (t, word) in words.iter_mut().enumerate() {
            for (lane, blocks) in word.iter_mut().zip(&blocks) {
                *lane = blocks[block].as_chunks::<8>().0.get(t).map_or(0, |bytes| u64::from_be_bytes(*bytes));
            }
        }
        compress(&mut state, words);
    }
    // Padding (FIPS 180-4, 5.1.2): the pieces end with a block, so it is a block of its own.
    let mut padding = [[0; N]; 16];
    padding[0] = [1 << 63; N];
    padding[15] = [count as u64 * 1024; N];
    compress(&mut state, padding);
    std::array::from_fn(|lane| {
        let mut digest = [0; 48];
        for (bytes, word) in digest.as_chunks_mut::<8>().0.iter_mut().zip(&state) {
            *bytes = word[lane].to_be_bytes();
        }
        digest
    })
}

/// FIPS 180-4, 6.4.2, with the message schedule in a ring of 16 words.
#[inline(always)]
fn compress<const N: usize>(state: &mut [Lanes<N>; 8], mut w: [Lanes<N>; 16]) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for t in 0..80 {
        if t >= 16 {
            let s0 = each(w[(t + 1) % 16], |x| x.rotate_right(1) ^ x.rotate_right(8) ^ (x >> 7));
            let s1 = each(w[(t + 14) % 16], |x| x.rotate_right(19) ^ x.rotate_right(61) ^ (x >> 6));
            w[t % 16] = add(add(w[t % 16], s0), add(w[(t + 9) % 16], s1));
        }
        let kw = each(w[t % 16], |x| x.wrapping_add(ROUND[t]));
        let s1 = each(e, |x| x.rotate_right(14) ^ x.rotate_right(18) ^ x.rotate_right(41));
        let choose = each3(e, f, g, |e, f, g| (e & f) ^ (!e & g));
        let t1 = add(add(h, kw), add(s1, choose));
        let s0 = each(a, |x| x.rotate_right(28) ^ x.rotate_right(34) ^ x.rotate_right(39));
        let majority = each3(a, b, c, |a, b, c| (a & b) ^ (a & c) ^ (b & c));
        (h, g, f, e) = (g, f, e, add(d, t1));
        (d, c, b, a) = (c, b, a, add(t1, add(s0, majority)));
    }
    for (old, new) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *old = add(*old, new);
    }
}

// Plain loops over arrays: inside a function compiled for AVX they become one instruction per operation.

#[inline(always)]
fn each<const N: usize>(mut a: Lanes<N>, f: impl Fn(u64) -> u64) -> Lanes<N> {
    for x in &mut a {
        *x = f(*x);
    }
    a
}

#[inline(always)]
fn add<const N: usize>(mut a: Lanes<N>, b: Lanes<N>) -> Lanes<N> {
    for i in 0..N {
        a[i] = a[i].wrapping_add(b[i]);
    }
    a
}

#[inline(always)]
fn each3<const N: usize>(mut a: Lanes<N>, b: Lanes<N>, c: Lanes<N>, f: impl Fn(u64, u64, u64) -> u64) -> Lanes<N> {
    for i in 0..N {
        a[i] = f(a[i], b[i], c[i]);
    }
    a
}

/// FIPS 180-4, 5.3.4: SHA-384's initial state.
const INITIAL: [u64; 8] = [
    0xcbbb_9d5d_c105_9ed8,
    0x629a_292a_367c_d507,
    0x9159_015a_3070_dd17,
    0x152f_ecd8_f70e_5939,
    0x6733_2667_ffc0_0b31,
    0x8eb4_4a87_6858_1511,
    0xdb0c_2e0d_64f9_8fa7,
    0x47b5_481d_befa_4fa4,
];

/// FIPS 180-4, 4.2.3.
#[rustfmt::skip]
const ROUND: [u64; 80] = [
    0x428a_2f98_d728_ae22, 0x7137_4491_23ef_65cd, 0xb5c0_fbcf_ec4d_3b2f, 0xe9b5_dba5_8189_dbbc, 0x3956_c25b_f348_b538,
    0x59f1_11f1_b605_d019, 0x923f_82a4_af19_4f9b, 0xab1c_5ed5_da6d_8118, 0xd807_aa98_a303_0242, 0x1283_5b01_4570_6fbe,
    0x2431_85be_4ee4_b28c, 0x550c_7dc3_d5ff_b4e2, 0x72be_5d74_f27b_896f, 0x80de_b1fe_3b16_96b1, 0x9bdc_06a7_25c7_1235,
    0xc19b_f174_cf69_2694, 0xe49b_69c1_9ef1_4ad2, 0xefbe_4786_384f_25e3, 0x0fc1_9dc6_8b8c_d5b5, 0x240c_a1cc_77ac_9c65,
    0x2de9_2c6f_592b_0275, 0x4a74_84aa_6ea6_e483, 0x5cb0_a9dc_bd41_fbd4, 0x76f9_88da_8311_53b5, 0x983e_5152_ee66_dfab,
    0xa831_c66d_2db4_3210, 0xb003_27c8_98fb_213f, 0xbf59_7fc7_beef_0ee4, 0xc6e0_0bf3_3da8_8fc2, 0xd5a7_9147_930a_a725,
    0x06ca_6351_e003_826f, 0x1429_2967_0a0e_6e70, 0x27b7_0a85_46d2_2ffc, 0x2e1b_2138_5c26_c926, 0x4d2c_6dfc_5ac4_2aed,
    0x5338_0d13_9d95_b3df, 0x650a_7354_8baf_63de, 0x766a_0abb_3c77_b2a8, 0x81c2_c92e_47ed_aee6, 0x9272_2c85_1482_353b,
    0xa2bf_e8a1_4cf1_0364, 0xa81a_664b_bc42_3001, 0xc24b_8b70_d0f8_9791, 0xc76c_51a3_0654_be30, 0xd192_e819_d6ef_5218,
    0xd699_0624_5565_a910, 0xf40e_3585_5771_202a, 0x106a_a070_32bb_d1b8, 0x19a4_c116_b8d2_d0c8, 0x1e37_6c08_5141_ab53,
    0x2748_774c_df8e_eb99, 0x34b0_bcb5_e19b_48a8, 0x391c_0cb3_c5c9_5a63, 0x4ed8_aa4a_e341_8acb, 0x5b9c_ca4f_7763_e373,
    0x682e_6ff3_d6b2_b8a3, 0x748f_82ee_5def_b2fc, 0x78a5_636f_4317_2f60, 0x84c8_7814_a1f0_ab72, 0x8cc7_0208_1a64_39ec,
    0x90be_fffa_2363_1e28, 0xa450_6ceb_de82_bde9, 0xbef9_a3f7_b2c6_7915, 0xc671_78f2_e372_532b, 0xca27_3ece_ea26_619c,
    0xd186_b8c7_21c0_c207, 0xeada_7dd6_cde0_eb1e, 0xf57d_4f7f_ee6e_d178, 0x06f0_67aa_7217_6fba, 0x0a63_7dc5_a2c8_98a6,
    0x113f_9804_bef9_0dae, 0x1b71_0b35_131c_471b, 0x28db_77f5_2304_7d84, 0x32ca_ab7b_40c7_2493, 0x3c9e_be0a_15c9_bebc,
    0x431d_67c4_9c10_0d4c, 0x4cc5_d4be_cb3e_42b6, 0x597f_299c_fc65_7e2a, 0x5fcb_6fab_3ad6_faec, 0x6c44_198c_4a47_5817,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 31 + i / 127) as u8).collect()
    }

    fn expected(text: &[u8], piece_bytes: usize) -> Vec<u8> {
        text.chunks(piece_bytes).flat_map(|piece| sha384(piece).0).collect()
    }

    #[test]
    fn the_same_as_sha2() {
        for (piece_bytes, most) in [(128, 3000), (1024, 24 * 1024 + 1)] {
            for length in (0..most).step_by(61).chain([piece_bytes * 8, piece_bytes * 13, piece_bytes * 13 + 1]) {
                let mut out = Vec::new();
                sha384_pieces(&text(length), piece_bytes, &mut out);
                assert_eq!(out, expected(&text(length), piece_bytes), "{length} in {piece_bytes}");
            }
        }
    }

    /// On every machine, whatever its CPU offers.
    #[test]
    fn any_number_of_lanes() {
        let data = text(4 * 256);
        let pieces: Vec<&[u8]> = data.chunks(256).collect();
        let digests = sha384_lanes::<4>(pieces.clone().try_into().unwrap());
        assert_eq!(digests.as_flattened(), expected(&data, 256));
        assert_eq!(sha384_lanes([pieces[1]]), [sha384(pieces[1]).0]);
    }
}
