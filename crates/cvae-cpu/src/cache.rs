//! Sizes of caches, by the processor's own word.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Assumed where the processor does not tell: no recent core of a server or a desktop has less.
const USUAL: usize = 512 * 1024;

/// Bytes of a core's second-level cache. Speed alone depends on it.
pub(crate) fn second_level() -> usize {
    static KNOWN: AtomicUsize = AtomicUsize::new(0);
    match KNOWN.load(Ordering::Relaxed) {
        0 => {
            let bytes = found().unwrap_or(USUAL);
            KNOWN.store(bytes, Ordering::Relaxed);
            bytes
        }
        bytes => bytes,
    }
}

#[cfg(target_arch = "x86_64")]
fn found() -> Option<usize> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    // AMD's "Cache Properties" and Intel's "Deterministic Cache Parameters" have one form: an entry for each cache.
    let leaf = match &[__cpuid(0).ebx, __cpuid(0).edx, __cpuid(0).ecx].map(u32::to_le_bytes).concat()[..] {
        b"AuthenticAMD" | b"HygonGenuine" => 0x8000_001D,
        _ => 4,
    };
    if __cpuid(leaf & 0x8000_0000).eax < leaf {
        return None;
    }
    let bits = |register: u32, from: u32, count: u32| (register >> from & ((1 << count) - 1)) as usize;
    let caches = (0..16).map(|index| __cpuid_count(leaf, index)).take_while(|cache| bits(cache.eax, 0, 5) != 0);
    // An instruction cache is of kind 2.
    let mut second = caches.filter(|cache| bits(cache.eax, 0, 5) != 2 && bits(cache.eax, 5, 3) == 2);
    let cache = second.next()?;
    let (line, partitions, ways) =
        (bits(cache.ebx, 0, 12) + 1, bits(cache.ebx, 12, 10) + 1, bits(cache.ebx, 22, 10) + 1);
    Some(line * partitions * ways * (cache.ecx as usize + 1))
}

#[cfg(not(target_arch = "x86_64"))]
fn found() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_level_cache_has_a_plausible_size() {
        let bytes = second_level();
        assert!((128 * 1024..=64 * 1024 * 1024).contains(&bytes), "{bytes}");
        // What Linux read of the same words, on cores that may differ.
        let told: Vec<String> = (0..1024)
            .map(|core| format!("/sys/devices/system/cpu/cpu{core}/cache/index2/"))
            .filter(|cache| std::fs::read_to_string(format!("{cache}level")).is_ok_and(|level| level.trim() == "2"))
            .filter_map(|cache| std::fs::read_to_string(format!("{cache}size")).ok())
            .collect();
        if let Some(found) = found().filter(|_| !told.is_empty()) {
            assert!(told.iter().any(|told| told.trim() == format!("{}K", found / 1024)), "{found}, not {told:?}");
        }
    }
}
