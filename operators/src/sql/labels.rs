//! `labels['x']` in a rollup's SELECT becomes a column of its own.
//!
//! Looking a key up in a map for every point would cost more than the aggregation. The decoder
//! knows each series' labels once, so the stream carries only the labels that SQL asks for, as one
//! column each. In batch the same text runs against the stored map.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Ident, Select, SelectItem, Subscript, Value, visit_expressions_mut,
};

/// The column that carries a label: readable in plans, and not a name that a user would choose.
pub fn label_column(label: &str) -> String {
    format!("labels['{label}']")
}

/// Gives every `labels['x']` in the SELECT list that has no alias the name `x`.
pub(super) fn name_bare_labels(select: &mut Select) {
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let Some(label) = label_of(expr) else { continue };
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', label) };
    }
}

/// Replaces every `labels['x']` by its column and returns the labels asked for, sorted.
pub(super) fn labels_to_columns(select: &mut Select) -> Vec<String> {
    let mut labels = Vec::new();
    let _ = visit_expressions_mut(select, |expr| {
        if let Some(label) = label_of(expr) {
            *expr = Expr::Identifier(Ident::with_quote('"', label_column(&label)));
            labels.push(label);
        }
        ControlFlow::<()>::Continue(())
    });
    labels.sort();
    labels.dedup();
    labels
}

/// Whether `expr` is `labels['x']`.
pub(super) fn is_label(expr: &Expr) -> bool {
    label_of(expr).is_some()
}

/// Whether `expr` is `labels[…]`, with whatever in the brackets.
pub(super) fn is_labels_access(expr: &Expr) -> bool {
    let Expr::CompoundFieldAccess { root, .. } = expr else { return false };
    matches!(root.as_ref(), Expr::Identifier(root) if root.value.eq_ignore_ascii_case("labels"))
}

fn label_of(expr: &Expr) -> Option<String> {
    let Expr::CompoundFieldAccess { root, access_chain } = expr else { return None };
    let Expr::Identifier(root) = root.as_ref() else { return None };
    if !root.value.eq_ignore_ascii_case("labels") {
        return None;
    }
    let [AccessExpr::Subscript(Subscript::Index { index: Expr::Value(key) })] = access_chain.as_slice()
    else {
        return None;
    };
    match &key.value {
        Value::SingleQuotedString(label) => Some(label.clone()),
        _ => None,
    }
}
