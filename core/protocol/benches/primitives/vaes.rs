//! AES-128 in counter mode on the widest instructions of x86-64, to compare with. It ships nowhere.
#![expect(unsafe_code, reason = "instructions of the processor, in a benchmark only")]

use core::arch::x86_64::{
    __m128i, __m512i, _mm_aeskeygenassist_si128, _mm_loadu_si128, _mm_set_epi8, _mm_shuffle_epi32,
    _mm_slli_si128, _mm_xor_si128, _mm512_add_epi64, _mm512_aesenc_epi128, _mm512_aesenclast_epi128,
    _mm512_broadcast_i32x4, _mm512_loadu_si512, _mm512_set_epi64, _mm512_shuffle_epi8, _mm512_storeu_si512,
    _mm512_xor_si512,
};

/// Blocks of one register.
const WIDE: usize = 4;
/// Registers that are under way at once: as many as hide how long an instruction takes.
const LANES: usize = 8;
/// Bytes of one turn.
const TURN: usize = 16 * WIDE * LANES;

/// Proof that the processor has the instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel(());

impl Kernel {
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw");
        has.then_some(Self(()))
    }

    /// XORs the key stream from a zero block into whole turns of bytes.
    pub(crate) fn xor_key_stream(self, key: &[u8; 16], acc: &mut [u8]) {
        let (turns, rest) = acc.as_chunks_mut();
        assert!(rest.is_empty(), "vectors are whole turns");
        // SAFETY: there is no kernel where the processor lacks one of the features.
        unsafe { xor_turns(key, turns) }
    }
}

#[target_feature(enable = "aes,vaes,avx512f,avx512bw")]
fn xor_turns(key: &[u8; 16], turns: &mut [[u8; TURN]]) {
    let keys: [__m512i; 11] = schedule(key).map(|key| _mm512_broadcast_i32x4(key));
    // A block is a number, most significant byte first; 64 bits of it are enough.
    #[rustfmt::skip]
    let swap = _mm512_broadcast_i32x4(_mm_set_epi8(
        8, 9, 10, 11, 12, 13, 14, 15, 7, 6, 5, 4, 3, 2, 1, 0,
    ));
    let mut counter = _mm512_set_epi64(3, 0, 2, 0, 1, 0, 0, 0);
    let step = _mm512_set_epi64(4, 0, 4, 0, 4, 0, 4, 0);
    for turn in turns {
        let mut blocks = [counter; LANES];
        for block in &mut blocks {
            *block = _mm512_xor_si512(_mm512_shuffle_epi8(counter, swap), keys[0]);
            counter = _mm512_add_epi64(counter, step);
        }
        for key in &keys[1..10] {
            for block in &mut blocks {
                *block = _mm512_aesenc_epi128(*block, *key);
            }
        }
        for (block, bytes) in blocks.iter().zip(turn.as_chunks_mut::<64>().0) {
            let stream = _mm512_aesenclast_epi128(*block, keys[10]);
            // SAFETY: reads and writes 64 bytes, which there are; neither needs them aligned.
            unsafe {
                let sum = _mm512_xor_si512(_mm512_loadu_si512(bytes.as_ptr().cast()), stream);
                _mm512_storeu_si512(bytes.as_mut_ptr().cast(), sum);
            }
        }
    }
}

#[target_feature(enable = "aes")]
fn schedule(key: &[u8; 16]) -> [__m128i; 11] {
    // SAFETY: reads 16 bytes, which there are; they need not be aligned.
    let mut keys = [unsafe { _mm_loadu_si128(key.as_ptr().cast()) }; 11];
    macro_rules! rounds {
        ($($round:literal $constant:literal)*) => {
            $(keys[$round] = next(keys[$round - 1], _mm_aeskeygenassist_si128::<$constant>(keys[$round - 1]));)*
        };
    }
    rounds!(1 0x01 2 0x02 3 0x04 4 0x08 5 0x10 6 0x20 7 0x40 8 0x80 9 0x1b 10 0x36);
    keys
}

#[target_feature(enable = "aes")]
fn next(key: __m128i, assist: __m128i) -> __m128i {
    let mut sum = key;
    for _ in 0..3 {
        sum = _mm_xor_si128(_mm_slli_si128::<4>(sum), key);
    }
    _mm_xor_si128(sum, _mm_shuffle_epi32::<0xff>(assist))
}
