//! Sessions of DataFusion in which SQL means what it means in rollups: operations are total.

use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::constants::Constants;
use super::sums::Sums;
use super::total::TotalOperations;
use super::{batch_functions, hop, tumble};

/// A session for SQL over all points or rows at once, in which the functions that a tier's SELECT
/// needs are known, and none by which one row could take all memory.
pub fn batch_session(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> SessionContext {
    let session = bounded(of(builder(config, TotalOperations::uncounted()).with_runtime_env(runtime)));
    for function in batch_functions() {
        session.register_udf(function);
    }
    session
}

/// A session for the expressions and queries of rules.
pub(crate) fn rule_session() -> SessionContext {
    bounded(of(builder(SessionConfig::new().with_target_partitions(1), TotalOperations::counted())))
}

/// Functions whose result may be of any length, whatever they are given. Those that lengthen texts
/// are bounded by [`super::constants`].
const UNBOUNDED: [&str; 8] = [
    "array_repeat",
    "array_resize",
    "gen_series",
    "generate_series",
    "list_repeat",
    "list_resize",
    "range",
    "space",
];

/// Leaves out what one row could take all memory by.
fn bounded(session: SessionContext) -> SessionContext {
    for name in UNBOUNDED {
        session.deregister_udf(name);
    }
    session
}

/// A session that plans rollups. Without physical optimizer rules the plan holds exactly the
/// SELECT's own nodes: no exchange, no sort. Its operations become total when it is cut into
/// stages.
pub(super) fn rollup_session() -> SessionContext {
    let config = common(SessionConfig::new())
        .with_target_partitions(1)
        .with_information_schema(false)
        .set_bool("datafusion.sql_parser.collect_spans", true)
        // A high-cardinality epoch is still merged: rows would cost more in Kafka than here.
        .set_usize("datafusion.execution.skip_partial_aggregation_probe_rows_threshold", usize::MAX);
    let builder = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_analyzer_rule(Arc::new(Sums))
        .with_analyzer_rule(Arc::new(Constants))
        .with_physical_optimizer_rules(vec![]);
    let session = bounded(of(builder));
    // The rule takes group columns out of the aggregate when others decide them, but states are
    // kept by the columns of the SELECT.
    session.remove_optimizer_rule("eliminate_group_by_constant");
    session.register_udf(tumble::tumble_udf());
    session.register_udf(hop::hop_udf());
    #[cfg(test)]
    session.register_udaf(crate::testing::picky());
    session
}

fn builder(config: SessionConfig, total: TotalOperations) -> SessionStateBuilder {
    let mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = vec![Arc::new(total)];
    rules.extend(PhysicalOptimizer::new().rules);
    SessionStateBuilder::new()
        .with_config(common(config))
        .with_default_features()
        .with_analyzer_rule(Arc::new(Sums))
        .with_analyzer_rule(Arc::new(Constants))
        .with_physical_optimizer_rules(rules)
}

/// What every session needs. A `CASE` that is shared by several aggregates can be null in a
/// physical plan and not in the logical one, for which DataFusion refuses the plan; total
/// operations give null anyway, and whatever is above them takes it.
fn common(config: SessionConfig) -> SessionConfig {
    config.set_bool("datafusion.execution.skip_physical_aggregate_schema_check", true)
}

fn of(builder: SessionStateBuilder) -> SessionContext {
    SessionContext::new_with_state(builder.build())
}
