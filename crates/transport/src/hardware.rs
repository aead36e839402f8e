//! What the processor is good at.

/// Whether AES has instructions of its own here: then AES-256-GCM is the fastest cipher, otherwise
/// ChaCha20-Poly1305 is (A6).
pub fn aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let found = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let found = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let found = false;
    found
}
