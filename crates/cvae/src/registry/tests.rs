use super::*;

fn asking(name: &str) -> BackendConfig {
    BackendConfig { name: name.to_owned(), ..BackendConfig::default() }
}

#[test]
fn unknown_names_list_the_known_ones() {
    let error = select(&asking("cpu-avx9")).unwrap_err().to_string();
    assert!(error.starts_with("unknown backend `cpu-avx9`; known: auto, cpu, cuda, candle, cpu-avx512"), "{error}");
}

#[test]
fn every_id_is_listed_and_listing_agrees_with_selecting() {
    let listed = list(1);
    assert_eq!(listed.iter().map(|status| status.id).collect::<Vec<_>>(), IDS);
    for status in listed {
        let precision = if status.id.ends_with("bf16") { Precision::Bf16 } else { Precision::F32 };
        match select(&BackendConfig { name: status.id.to_owned(), precision, threads: Some(1) }) {
            Ok(selected) => {
                assert!(status.available, "{status:?}");
                assert_eq!(selected.backend.id().as_str(), status.id);
                assert!(!status.detail.is_empty());
            }
            Err(error) => {
                assert!(!status.available, "{status:?}");
                assert!(sentence(&error).ends_with(&status.detail), "{status:?}");
            }
        }
    }
}

#[test]
fn precision_is_never_changed_silently() {
    for name in ["auto", "cpu", "candle", "cpu-scalar", "cuda-tf32"] {
        if matches!(name, "auto" | "cpu") && has_bf16_products() {
            continue;
        }
        let config = BackendConfig { precision: Precision::Bf16, ..asking(name) };
        let error = select(&config).unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{name}` does not compute in bf16: ")), "{error}");
        let lacks = error.contains("this processor lacks products of bfloat16 (AVX-512 BF16)");
        assert_eq!(lacks, (name == "auto" || name.starts_with("cpu")) && !has_bf16_products(), "{error}");
    }
    for name in ["cuda-bf16", "cpu-avx512-bf16", "cpu-amx-bf16", "cpu-scalar-bf16"] {
        let error = select(&asking(name)).unwrap_err().to_string();
        assert_eq!(error, format!("`{name}` does not compute in f32: the backend's name stands for another precision"));
    }
}

#[cfg(feature = "cpu")]
#[test]
fn bf16_is_never_computed_by_the_portable_level_unasked() {
    let asking = |name: &str| BackendConfig { precision: Precision::Bf16, threads: Some(1), ..asking(name) };
    assert_eq!(select(&asking("cpu-scalar-bf16")).unwrap().backend.id().as_str(), "cpu-scalar-bf16");
    let plan = crate::Config::digits().plan().unwrap();
    let widest = if cvae_cpu::Level::AmxBf16.available() { "cpu-amx-bf16" } else { "cpu-avx512-bf16" };
    for name in ["auto", "cpu"] {
        for chosen in [select(&asking(name)), select_for(&asking(name), &plan)] {
            match chosen {
                Ok(selected) => assert_eq!(selected.backend.id().as_str(), widest),
                Err(error) => assert!(matches!(error, RegistryError::Precision { precision: "bf16", .. }), "{error}"),
            }
        }
    }
}

#[test]
fn no_threads_are_refused() {
    let config = BackendConfig { threads: Some(0), ..BackendConfig::default() };
    assert!(matches!(select(&config), Err(RegistryError::NoThreads)));
    assert!(default_threads() >= 1);
}

#[cfg(feature = "cpu")]
#[test]
fn auto_and_cpu_are_the_widest_available_level_and_say_so() {
    let available: Vec<_> = list(1).into_iter().filter(|s| s.available && s.id.starts_with("cpu")).collect();
    for name in ["auto", "cpu"] {
        let selected = select(&asking(name)).unwrap();
        assert_eq!(selected.backend.id().as_str(), available[0].id);
        assert!(selected.reason.contains("fastest"), "{}", selected.reason);
        assert_eq!(selected.backend.device().threads, Some(default_threads()));
    }
    let crowd = BackendConfig { threads: Some(100_000), ..asking("auto") };
    assert!(matches!(select(&crowd).unwrap_err(), RegistryError::Unavailable(Unsupported::TooLarge { .. })));
    let one = select(&BackendConfig { threads: Some(1), ..asking("cpu-scalar") }).unwrap();
    assert_eq!(one.backend.device().threads, Some(1));
}

#[test]
fn a_plan_changes_the_choice_only_where_there_is_a_gpu() {
    let plan = crate::Config::digits().plan().unwrap();
    let gpu = list(1).into_iter().find(|status| status.id == "cuda-f32").unwrap();
    let (given, plain) = (select_for(&asking("auto"), &plan), select(&asking("auto")));
    match (given, plain) {
        (Ok(given), Ok(plain)) if !gpu.available => {
            assert_eq!(given.backend.id(), plain.backend.id());
            assert!(!given.reason.contains("GPU"), "{}", given.reason);
        }
        (Ok(given), _) => assert!(given.reason.contains("GPU"), "{}", given.reason),
        (Err(error), plain) => assert_eq!(error.to_string(), plain.unwrap_err().to_string()),
    }
    // A backend asked for by name is not second-guessed.
    assert_eq!(select_for(&asking("reference"), &plan).is_ok(), cfg!(feature = "reference"));
}

#[test]
fn what_is_not_built_or_not_there_is_said_in_one_sentence() {
    match select(&asking("cuda")) {
        Ok(selected) => assert_eq!(selected.backend.id().as_str(), "cuda-f32"),
        Err(error) if cfg!(feature = "cuda") => {
            let text = sentence(&error);
            assert!(text.starts_with("cuda-f32 cannot be used: "), "{text}");
            let listed = list(1).into_iter().find(|status| status.id == "cuda-f32").unwrap();
            assert_eq!(text, format!("cuda-f32 cannot be used: {}", listed.detail));
        }
        Err(error) => {
            assert_eq!(error.to_string(), "cuda-f32 is not part of this build (cargo feature `cuda`)");
        }
    }
}
