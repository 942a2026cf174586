//! The labels of a rule's alerts: no two alerts may have the same ones, at any receiver.

use super::complaint::Complaint;
use super::rule::{RuleSpec, Watched};
use super::wording::NO_DATA_LABEL;

/// Labels by which receivers tell alerts apart and that do not come from their groups.
const OWN_LABELS: [&str; 3] = ["alertname", "severity", NO_DATA_LABEL];

/// Refuses labels that would hide one another.
pub(super) fn check_labels(spec: &RuleSpec, watched: &Watched) -> Result<(), Complaint> {
    if let Some((_, tag)) = watched.tags().find(|(_, tag)| spec.labels.contains_key(*tag)) {
        let message = format!("`{tag}` is also a tag of the rollup, which every alert carries as a label");
        return Err(Complaint::new(message, "give the rule's label another name"));
    }
    if let Some((_, tag)) = watched.tags().find(|(_, tag)| OWN_LABELS.contains(tag)) {
        let message =
            format!("`{tag}` is a tag of what the rule watches, and a label that alerts have of their own");
        let remedy = format!("give the column another name, like `{tag}_of_source`");
        return Err(Complaint::new(message, remedy));
    }
    if let Some(label) = spec.labels.keys().find(|label| OWN_LABELS.contains(&label.as_str())) {
        let message = format!("every alert has a label `{label}` of its own");
        return Err(Complaint::new(message, "give the rule's label another name"));
    }
    if let Some((label, _)) = spec.labels.iter().find(|(_, text)| text.contains("{{") || text.contains("{%"))
    {
        let message = format!("the label `{label}` is the same for all alerts of the rule, and no template");
        let remedy = "write its text, or select a column that has it as a tag of the rollup";
        return Err(Complaint::new(message, remedy));
    }
    Ok(())
}
