//! What a ResourceQuota of the host says of one more object. Pure; after `plugin/resourcequota` of `k8s.io/apiserver`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kubefed_apimachinery::gvk::GroupResource;

/// Kubernetes counts in units of a billionth.
const UNIT: i128 = 1_000_000_000;

/// The name under which quotas count the objects of a kind.
pub(crate) fn key(resource: &GroupResource) -> String {
    format!("count/{resource}")
}

/// The group and the plural of the kind whose objects are counted under this name, if any are.
pub(crate) fn counted(key: &str) -> Option<(&str, &str)> {
    let resource = key.strip_prefix("count/")?;
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    Some((group, plural))
}

/// Whether a quota limits how many of these there are. One with a scope counts only what has scopes, as pods do.
pub(crate) fn limits(quota: &ResourceQuota, key: &str) -> bool {
    let Some(spec) = &quota.spec else { return false };
    spec.scopes.as_ref().is_none_or(Vec::is_empty)
        && spec.scope_selector.is_none()
        && spec.hard.as_ref().is_some_and(|hard| hard.contains_key(key))
}

/// Whether the host has counted already what the quota limits.
pub(crate) fn is_counted(quota: &ResourceQuota, key: &str) -> bool {
    limit_and_use(quota, key).is_some()
}

fn limit_and_use<'a>(quota: &'a ResourceQuota, key: &str) -> Option<(&'a Quantity, &'a Quantity)> {
    let status = quota.status.as_ref()?;
    Some((status.hard.as_ref()?.get(key)?, status.used.as_ref()?.get(key)?))
}

/// Charges one more object to every one of `quotas` that limits its kind. Returns whether there was any.
///
/// # Errors
/// Kubernetes' words for why there may be no more; then none is charged.
pub(crate) fn charge(quotas: &mut [ResourceQuota], key: &str) -> Result<bool, String> {
    let mut used = Vec::new();
    for (index, quota) in quotas.iter().enumerate().filter(|(_, quota)| limits(quota, key)) {
        let name = quota.metadata.name.as_deref().unwrap_or("");
        let Some((limit, before)) = limit_and_use(quota, key) else {
            return Err(format!("status unknown for quota: {name}, resources: {key}"));
        };
        let (limited, counted) = (&limit.0, &before.0);
        let (Some(limit), Some(before)) = (amount(limited), amount(counted)) else {
            return Err(format!("status unknown for quota: {name}, resources: {key}"));
        };
        if before + UNIT > limit {
            return Err(format!(
                "exceeded quota: {name}, requested: {key}=1, used: {key}={counted}, limited: {key}={limited}"
            ));
        }
        used.push((index, (before + UNIT) / UNIT));
    }
    let charged = !used.is_empty();
    for (index, used) in used {
        let status = quotas[index].status.get_or_insert_default();
        let counted: &mut BTreeMap<_, _> = status.used.get_or_insert_default();
        counted.insert(key.to_owned(), Quantity(used.to_string()));
    }
    Ok(charged)
}

/// A quantity in billionths, rounded up as Kubernetes does; `None` if it is none, or beyond all counting.
fn amount(quantity: &str) -> Option<i128> {
    let end = quantity.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-'));
    let (number, suffix) = quantity.split_at(end.unwrap_or(quantity.len()));
    let (scale, divisor): (i128, i128) = match suffix {
        "" => (UNIT, 1),
        "n" => (1, 1),
        "u" => (1_000, 1),
        "m" => (1_000_000, 1),
        "k" => (UNIT * 1_000, 1),
        "M" => (UNIT * 1_000_000, 1),
        "G" => (UNIT * 1_000_000_000, 1),
        "T" => (UNIT * 1_000_000_000_000, 1),
        "P" => (UNIT * 1_000_000_000_000_000, 1),
        "E" => (UNIT * 1_000_000_000_000_000_000, 1),
        "Ki" => (UNIT << 10, 1),
        "Mi" => (UNIT << 20, 1),
        "Gi" => (UNIT << 30, 1),
        "Ti" => (UNIT << 40, 1),
        "Pi" => (UNIT << 50, 1),
        "Ei" => (UNIT << 60, 1),
        exponent => match exponent.strip_prefix(['e', 'E'])?.parse::<i32>().ok()? {
            n @ 0..=18 => (UNIT * 10_i128.pow(n.unsigned_abs()), 1),
            n @ -18..=-1 => (UNIT, 10_i128.pow(n.unsigned_abs())),
            _ => return None,
        },
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = divisor.checked_mul(10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    let scaled = digits.checked_mul(scale)?;
    Some(scaled.div_euclid(divisor) + i128::from(scaled.rem_euclid(divisor) > 0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEY: &str = "count/federatedthings.types.kubefed.io";

    fn quota(name: &str, hard: &str, used: Option<&str>) -> ResourceQuota {
        let status =
            used.map(|used| json!({"hard": {KEY: hard}, "used": {KEY: used, "pods": "1"}}));
        let quota =
            json!({"metadata": {"name": name}, "spec": {"hard": {KEY: hard}}, "status": status});
        serde_json::from_value(quota).expect("a quota")
    }

    fn used(quota: &ResourceQuota) -> &str {
        &limit_and_use(quota, KEY).expect("it is counted").1.0
    }

    #[test]
    fn one_more_is_charged_up_to_the_limit() {
        let mut quotas = [quota("few", "2", Some("0")), quota("many", "1k", Some("998"))];
        assert_eq!(charge(&mut quotas, KEY), Ok(true));
        assert_eq!(charge(&mut quotas, KEY), Ok(true));
        assert_eq!((used(&quotas[0]), used(&quotas[1])), ("2", "1000"));
        let refused = charge(&mut quotas, KEY).expect_err("there are two");
        assert_eq!(
            refused,
            format!("exceeded quota: few, requested: {KEY}=1, used: {KEY}=2, limited: {KEY}=2")
        );
        assert_eq!(
            quotas[0].status.as_ref().expect("a status").used.as_ref().expect("uses").len(),
            2
        );
    }

    #[test]
    fn nothing_is_charged_if_one_quota_refuses() {
        let mut quotas = [quota("a", "5", Some("0")), quota("b", "1", Some("1"))];
        assert!(charge(&mut quotas, KEY).is_err());
        assert_eq!(used(&quotas[0]), "0");
    }

    #[test]
    fn the_name_of_a_count_tells_the_kind() {
        for (group, plural) in [("types.kubefed.io", "federatedthings"), ("", "pods")] {
            let resource = GroupResource { group: group.into(), resource: plural.into() };
            assert_eq!(counted(&key(&resource)), Some((group, plural)));
        }
        assert_eq!(counted("requests.cpu"), None);
    }

    #[test]
    fn what_was_not_counted_yet_is_refused() {
        let mut quotas = [quota("new", "5", None)];
        assert!(!is_counted(&quotas[0], KEY));
        let refused = charge(&mut quotas, KEY).expect_err("it is not counted");
        assert_eq!(refused, format!("status unknown for quota: new, resources: {KEY}"));
    }

    #[test]
    fn other_kinds_and_scopes_are_none_of_its_business() {
        let mut scoped = quota("scoped", "0", Some("0"));
        scoped.spec.as_mut().expect("a spec").scopes = Some(vec!["BestEffort".into()]);
        assert_eq!(charge(&mut [scoped], KEY), Ok(false));
        assert_eq!(
            charge(&mut [quota("a", "0", Some("0"))], "count/others.types.kubefed.io"),
            Ok(false)
        );
    }

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, billionths) in [
            ("0", Some(0)),
            ("2", Some(2 * UNIT)),
            ("1500m", Some(UNIT * 3 / 2)),
            ("1.5", Some(UNIT * 3 / 2)),
            ("1k", Some(1000 * UNIT)),
            ("2Ki", Some(2048 * UNIT)),
            ("3e2", Some(300 * UNIT)),
            ("5E-1", Some(UNIT / 2)),
            ("-1", Some(-UNIT)),
            ("1e-18", Some(1)),
            ("", None),
            ("k", None),
            ("1x", None),
            ("1.2.3", None),
            ("1e99", None),
            (&"9".repeat(60), None),
        ] {
            assert_eq!(amount(text), billionths, "{text}");
        }
    }
}
