//! Seals what is kept on disk (AES-256-GCM), bound to its owner: what is moved to another owner's place does not open.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_core::{Digest, Secret};
use zeroize::Zeroizing;

use super::Owner;

/// The form of what is sealed: this byte, the name of the key, the nonce, then the text with its tag.
const FORM: u8 = 1;
const KEY_NAME_BYTES: usize = 8;
const KEY_BYTES: usize = 32;

/// Seals and opens, with one key.
pub struct Sealer {
    key: RandomizedNonceKey,
    name: [u8; KEY_NAME_BYTES],
}

/// The text is not a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a sealing key is 32 random bytes in base64: `head -c 32 /dev/urandom | base64`")]
pub struct BadSealingKey;

/// What was sealed does not open.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum NotOpened {
    #[error("it was sealed with another key")]
    OtherKey,
    #[error("it was changed, or sealed for another owner")]
    Changed,
}

impl Sealer {
    /// Takes a key of 32 bytes in base64.
    pub fn new(key: &Secret) -> Result<Self, BadSealingKey> {
        let bytes = STANDARD.decode(key.expose().trim()).map_err(|_| BadSealingKey)?;
        let bytes = Zeroizing::new(bytes);
        if bytes.len() != KEY_BYTES || bytes.iter().all(|byte| Some(byte) == bytes.first()) {
            return Err(BadSealingKey);
        }
        let digest = Digest::of(&[b"ringfence sealing key v1\n", &bytes]);
        let mut name = [0; KEY_NAME_BYTES];
        name.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| BadSealingKey)?;
        Ok(Self { key, name })
    }

    /// Seals a text for its owner; `None` where the machine has no randomness.
    pub(super) fn seal(&self, owner: &Owner, text: &Secret) -> Option<Vec<u8>> {
        let mut bytes = text.expose().as_bytes().to_vec();
        let nonce = self.key.seal_in_place_append_tag(Aad::from(self.bound_to(owner)), &mut bytes).ok()?;
        Some([&[FORM], self.name.as_slice(), nonce.as_ref(), &bytes].concat())
    }

    /// Opens what was sealed for this owner.
    pub(super) fn open(&self, owner: &Owner, sealed: &[u8]) -> Result<Secret, NotOpened> {
        let rest = sealed.strip_prefix(&[FORM]).ok_or(NotOpened::Changed)?;
        let rest = rest.strip_prefix(&self.name).ok_or(NotOpened::OtherKey)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(NotOpened::Changed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotOpened::Changed)?;
        let mut text = Zeroizing::new(text.to_vec());
        let opened = self.key.open_in_place(nonce, Aad::from(self.bound_to(owner)), &mut text);
        let opened = opened.map_err(|_| NotOpened::Changed)?;
        let text = std::str::from_utf8(opened).map_err(|_| NotOpened::Changed)?;
        Ok(Secret::new(text.to_owned()))
    }

    fn bound_to(&self, owner: &Owner) -> Vec<u8> {
        let Owner { issuer, subject, system } = owner;
        let bound = serde_json::json!(["ringfence grant v1", self.name, issuer, subject, system.as_str()]);
        bound.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use ringfence_core::SystemName;

    use super::*;

    fn sealer(byte: u8) -> Sealer {
        let mut key = [byte; KEY_BYTES];
        key[0] = 0;
        Sealer::new(&Secret::new(STANDARD.encode(key))).unwrap()
    }

    fn owner(subject: &str, system: &str) -> Owner {
        let system = SystemName::new(system.to_owned()).unwrap();
        Owner { issuer: "https://login.example".into(), subject: subject.into(), system }
    }

    #[test]
    fn what_is_sealed_opens_for_its_owner_with_its_key_alone() {
        let (one, other) = (sealer(1), sealer(2));
        let bob = owner("bob", "crm");
        let sealed = one.seal(&bob, &Secret::new("refresh-token".into())).unwrap();
        let open = |sealer: &Sealer, owner: &Owner, sealed: &[u8]| {
            sealer.open(owner, sealed).map(|text| text.expose().to_owned())
        };
        assert_eq!(open(&one, &bob, &sealed), Ok("refresh-token".into()), "the control");
        assert!(!sealed.windows(7).any(|window| window == b"refresh"));
        assert_eq!(open(&other, &bob, &sealed), Err(NotOpened::OtherKey));
        assert_eq!(open(&one, &owner("eve", "crm"), &sealed), Err(NotOpened::Changed));
        assert_eq!(open(&one, &owner("bob", "mail"), &sealed), Err(NotOpened::Changed));
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert!(one.open(&bob, &changed).is_err(), "{place}");
        }
        assert!(one.open(&bob, &sealed[..sealed.len() - 1]).is_err());
        assert_ne!(
            one.seal(&bob, &Secret::new("refresh-token".into())).unwrap(),
            sealed,
            "never twice the same"
        );
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in
            ["", "short", &STANDARD.encode([1; 16]), &STANDARD.encode([0; 32]), &STANDARD.encode([7; 32])]
        {
            assert_eq!(Sealer::new(&Secret::new(bad.to_owned())).err(), Some(BadSealingKey), "{bad}");
        }
    }
}
