//! Specifications as text: every value survives JSON and TOML, and nothing unknown is swallowed.

mod common;

use common::{models, optimizers};
use cvae_core::{
    Activation, ColumnGroup, ColumnKind, Corruption, Initializer, Jacobian, Latent, ModelSpec, Objective,
    OptimizerSpec, Part, Patch, Reconstruction, State,
};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn json<T: Serialize + DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

fn toml<T: Serialize + DeserializeOwned>(value: &T) -> T {
    toml::from_str(&toml::to_string(value).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn models_and_objectives((spec, objective) in models()) {
        prop_assert_eq!(&json(&spec), &spec);
        prop_assert_eq!(&toml(&spec), &spec);
        prop_assert_eq!(&json(&objective), &objective);
        prop_assert_eq!(&toml(&objective), &objective);
    }

    #[test]
    fn optimizers_survive(optimizer in optimizers()) {
        prop_assert_eq!(json(&optimizer), optimizer);
        prop_assert_eq!(toml(&optimizer), optimizer);
    }
}

/// The text forms are a file format: these strings may not change.
#[test]
fn the_written_form_is_stable() {
    let spec = ModelSpec::mlp(&[4, 2], Activation::LeakyRelu, Activation::Sigmoid).unwrap();
    assert_eq!(
        serde_json::to_string(&spec).unwrap(),
        r#"{"input":[4],"encoder":[{"kind":"dense","units":2,"activation":"identity"}],"decoder":[{"kind":"dense","units":4,"activation":"sigmoid"}]}"#
    );
    assert_eq!(
        serde_json::to_string(&Objective::collapsed(0.5, 0.25)).unwrap(),
        r#"{"reconstruction":{"kind":"mse_sum"},"latent":{"kind":"collapsed","beta":0.5},"decoder_l2":0.25}"#
    );
    let every_part = Objective {
        sigma_floor: Some(0.5),
        missing: true,
        top_k: Some(1),
        corruption: Corruption::Masked { share: 0.75, patch: Some(Patch { size: 2, width: 4, channels: 1 }) },
        jacobian: Jacobian::Contractive { weight: 0.25 },
        columns: vec![ColumnGroup::new(ColumnKind::Categorical, 4)],
        ..Objective::ae()
    };
    assert_eq!(
        serde_json::to_string(&every_part).unwrap(),
        concat!(
            r#"{"reconstruction":{"kind":"mse_sum"},"latent":{"kind":"none"},"decoder_l2":0.0,"sigma_floor":0.5,"#,
            r#""missing":true,"top_k":1,"corruption":{"kind":"masked","share":0.75,"#,
            r#""patch":{"size":2,"width":4,"channels":1}},"jacobian":{"kind":"contractive","weight":0.25},"#,
            r#""columns":[{"kind":"categorical","width":4,"weight":1.0}]}"#
        )
    );
    assert_eq!(
        serde_json::to_string(&OptimizerSpec::sgd(0.5, 0.25)).unwrap(),
        r#"{"algorithm":{"kind":"sgd","momentum":0.25},"learning_rate":0.5,"schedule":{"kind":"constant"},"warmup_steps":0,"clip_norm":null}"#
    );
    assert_eq!(
        toml::to_string(&Objective::vae(2.0)).unwrap(),
        "decoder_l2 = 0.0\n\n[reconstruction]\nkind = \"mse_sum\"\n\n[latent]\nkind = \"variational\"\nbeta = 2.0\n"
    );
}

#[test]
fn names_equal_the_written_form() {
    for activation in Activation::ALL {
        assert_eq!(serde_json::to_value(activation).unwrap(), activation.name());
    }
    for initializer in Initializer::ALL {
        assert_eq!(serde_json::to_value(initializer).unwrap(), initializer.name());
    }
    for part in [Part::Encoder, Part::Decoder] {
        assert_eq!(serde_json::to_value(part).unwrap(), part.to_string());
    }
    let huber = Reconstruction::Huber { delta: 1.0 };
    for kind in [Reconstruction::MseSum, Reconstruction::MseMean, Reconstruction::Bce, Reconstruction::L1, huber] {
        assert_eq!(serde_json::to_value(kind).unwrap()["kind"], kind.name());
    }
    assert_ne!(State::Params, State::Grads);
}

#[test]
fn unknown_names_and_fields_are_refused() {
    fn message<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
        toml::from_str::<T>(text).expect_err(text).message().to_owned()
    }
    let latent = |text: &str| message::<Latent>(text);
    assert!(latent("kind = \"collapsed\"\nbeta = 1.0\nlambda = 2.0").contains("unknown field `lambda`"));
    assert!(latent("kind = \"conditional\"\nbeta = 1.0").contains("unknown variant `conditional`"));
    assert!(latent("kind = \"collapsed\"").contains("missing field `beta`"));
    assert!(message::<OptimizerSpec>("learningrate = 1.0").contains("unknown field `learningrate`"));
    let layer = "input = [4]\ndecoder = []\n[[encoder]]\nkind = \"dense\"\nunits = 2\nactivation = \"softmax\"";
    assert!(message::<ModelSpec>(layer).contains("unknown variant `softmax`"));
    let extra = "decoder_l2 = 0.0\ngamma = 1.0\n[reconstruction]\nkind = \"l1\"\n[latent]\nkind = \"none\"";
    assert!(message::<Objective>(extra).contains("unknown field `gamma`"));
}
