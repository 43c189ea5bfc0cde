//! What the CPU has: which of the loops in straight-line code, AVX2 and AVX-512 may run.
//!
//! Rings and caches ask once, when they are made. What always holds: a proof exists only where `is_x86_feature_detected!` said so,
//! and the loops that need it are reached through it.
#![forbid(unsafe_code)]

/// Which loops queues and caches use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Straight-line code over atomics.
    Portable,
    /// Vectors of 256 bits. The proof makes sure that the CPU has them.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// Vectors of 512 bits, likewise.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Kernel {
    /// The widest loops of this CPU whose vectors have at most so many bits.
    pub(crate) fn best(vector_bits: u16) -> Kernel {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(proof) = Avx512::detect().filter(|_| vector_bits >= 512) {
                return Kernel::Avx512(proof);
            }
            if let Some(proof) = Avx2::detect().filter(|_| vector_bits >= 256) {
                return Kernel::Avx2(proof);
            }
        }
        let _ = vector_bits;
        Kernel::Portable
    }

    /// Bits of the vectors that it uses.
    fn vector_bits(self) -> u16 {
        match self {
            Kernel::Portable => 0,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(_) => 256,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512(_) => 512,
        }
    }
}

/// The widest vectors that queues use on this CPU, in bits: 512 where it has AVX-512, 256 where it has AVX2, 0 where they do
/// without. [`PortConfig::vector_bits`](crate::PortConfig::vector_bits) asks for narrower ones.
pub fn widest_vectors() -> u16 {
    Kernel::best(u16::MAX).vector_bits()
}

#[cfg(target_arch = "x86_64")]
/// That this CPU has AVX2. Only `detect` makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    pub(crate) fn detect() -> Option<Avx2> {
        std::arch::is_x86_feature_detected!("avx2").then_some(Avx2(()))
    }
}

#[cfg(target_arch = "x86_64")]
/// That this CPU has AVX-512 as the loops need it. Only `detect` makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512(());

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// VBMI2 is not used: it tells the CPUs (Ice Lake and Zen 4 on) whose clock does not fall for light work in 512 bits
    /// from those where it does.
    pub(crate) fn detect() -> Option<Avx512> {
        let has = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("bmi1")
            && std::arch::is_x86_feature_detected!("bmi2")
            && std::arch::is_x86_feature_detected!("lzcnt")
            && std::arch::is_x86_feature_detected!("avx512vbmi2");
        has.then_some(Avx512(()))
    }
}
