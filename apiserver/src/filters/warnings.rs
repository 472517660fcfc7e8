//! Warnings for the client, as `Warning: 299 - "text"` headers.

use std::sync::Arc;

use http::HeaderValue;
use parking_lot::Mutex;

/// As Kubernetes: when all warnings together are longer than this, each is cut to the second number.
const TOTAL: usize = 4096;
const EACH: usize = 256;

/// Collects the warnings of one request. The same text counts once.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut texts = self.0.lock();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }

    pub(super) fn header_values(&self) -> Vec<HeaderValue> {
        let texts = self.0.lock();
        let cut = texts.iter().map(String::len).sum::<usize>() > TOTAL;
        let mut left = TOTAL;
        texts
            .iter()
            .filter_map(|text| {
                let text: String = text
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(if cut { EACH } else { TOTAL })
                    .collect();
                left = left.checked_sub(text.len())?;
                let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
                HeaderValue::from_str(&format!("299 - \"{quoted}\"")).ok()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_sent_once_and_quoted() {
        let warnings = Warnings::default();
        warnings.add("unknown field \"spec.x\"");
        warnings.add("unknown field \"spec.x\"");
        assert_eq!(warnings.header_values(), [r#"299 - "unknown field \"spec.x\"""#]);
    }
}
