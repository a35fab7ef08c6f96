//! Each layer fails in turn: the run is refused, and the refusal names the layer. One that is only left out, without a word, has
//! to be seen from outside.

use ringfence_sandbox::{Fault, Layer};

use crate::lifecycle::{ensure, verdict};
use crate::probe::Verdict;
use crate::run::{Stage, Target, run_once};

pub(crate) const LIST: &[(&str, &str, bool)] = &[
    ("L07r", "a layer that the kernel refuses", true),
    ("L07s", "a layer that is left out without a word", true),
];

/// What the kernel shows to nobody outside, so that leaving it out cannot be seen there.
const UNSEEN: &[(Layer, &str)] = &[(Layer::NoNestedNamespaces, "the count belongs to whoever opens it")];

pub(crate) async fn play(_: &mut Stage, target: &Target, id: &str) -> Verdict {
    verdict(if id == "L07r" { refused(target).await } else { left_out(target).await })
}

async fn refused(target: &Target) -> Result<String, String> {
    let mut wrong = Vec::new();
    for layer in Layer::ALL {
        match with(target, layer, Fault::Refused).await {
            Err(named) if named == layer.as_str() => {}
            other => wrong.push(format!("{}: {other:?}", layer.as_str())),
        }
    }
    ensure(wrong.is_empty(), || wrong.join("; "))?;
    control(target).await
}

async fn left_out(target: &Target) -> Result<String, String> {
    let (mut wrong, mut unseen, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for layer in Layer::ALL {
        match with(target, layer, Fault::Skipped).await {
            Err(named) if named == layer.as_str() => {}
            other => match UNSEEN.iter().find(|(known, _)| *known == layer) {
                _ if other.is_err() => {
                    others.push(format!("{} (as `{}`)", layer.as_str(), other.unwrap_err()));
                }
                Some((_, why)) if other.is_ok() => unseen.push(format!("{} ({why})", layer.as_str())),
                _ => wrong.push(format!("{}: it ran", layer.as_str())),
            },
        }
    }
    ensure(wrong.is_empty(), || wrong.join("; "))?;
    control(target).await?;
    Ok(format!(
        "not to be seen from outside: {}; refused, as what failed in consequence: {}",
        unseen.join(", "),
        others.join(", ")
    ))
}

async fn with(target: &Target, layer: Layer, fault: Fault) -> Result<(), String> {
    let mut profile = target.profile.clone().dangerously_with_fault(layer, fault);
    profile.ready = 0;
    run_once(&profile, "print('ran')").await.map(drop).map_err(|refused| refused.layer)
}

async fn control(target: &Target) -> Result<String, String> {
    let mut profile = target.profile.clone();
    profile.ready = 0;
    let ran = run_once(&profile, "print('ran')").await;
    ensure(ran.is_ok_and(|outcome| outcome.stdout.text == "ran\n"), || {
        "control: nothing runs without a fault".to_owned()
    })?;
    Ok(String::new())
}
