//! `tidemark explain <rollup>`: what a rollup does, for authors of its SQL and readers of its
//! results.

use std::fmt::Write as _;
use std::time::Duration;

use arrow::datatypes::DataType;
use operators::sql::{Catalog, Rollup};
use sinks::Table;

use crate::catalog::{rollup_names, suggest_rollup};
use crate::config::Config;

/// Describes the rollup `name`: its windows and when they are final, what is stored, its state and
/// its plans.
///
/// # Errors
/// When there is no such rollup: a text that names the nearest.
pub fn explain(catalog: &Catalog, name: &str, config: &Config) -> Result<String, String> {
    let Some(rollup) = catalog.rollups.iter().find(|rollup| rollup.name == name) else {
        let suggestion = suggest_rollup(name, &rollup_names(&catalog.rollups));
        return Err(format!("unknown rollup `{name}`: {suggestion}"));
    };
    let mut text = format!("{name}\n");
    windows(&mut text, rollup, config);
    stored(&mut text, rollup, config);
    state(&mut text, rollup, catalog);
    for tier in rollup.tiers() {
        let of_tier =
            if rollup.tiers().len() > 1 { format!(" of tier {}", tier.name) } else { String::new() };
        let query = &tier.batch_sql;
        let _ = write!(text, "\nQuery{of_tier}, as it runs in batch over stored points\n  {query}\n");
    }
    let _ = write!(text, "\nPlans\n{}", indent(&rollup.explain()));
    Ok(text)
}

fn windows(text: &mut String, rollup: &Rollup, config: &Config) {
    let windows = &rollup.finest().windows;
    let alignment = match windows.zone() {
        None if windows.is_hopping() => {
            let slide = Duration::from_nanos(windows.pane().size().unsigned_abs());
            format!("one starts every {} since the epoch (UTC)", shown(slide))
        }
        None => "aligned to the epoch (UTC)".to_owned(),
        Some(zone) => format!("aligned to midnight in {zone}; a day follows its clock"),
    };
    let disorder = config.ingest.max_out_of_orderness;
    let lateness = Duration::from_nanos(rollup.allowed_lateness.unsigned_abs());
    let size = Duration::from_nanos(windows.size().unsigned_abs());
    section(text, "Windows (in event time)");
    line(text, "length", &format!("{}, {alignment}", shown(size)));
    if rollup.tiers().len() > 1 {
        let names: Vec<&str> = rollup.tiers().iter().map(|tier| tier.name.as_str()).collect();
        let names = names.join(", ");
        line(
            text,
            "tiers",
            &format!("{names}: the same states; each tier follows these rules by its own windows"),
        );
    }
    line(text, "holds", "points from its start up to, without, its end");
    line(
        text,
        "written",
        &format!(
            "when every source partition has reached its end + {} (max_out_of_orderness in [ingest])",
            shown(disorder)
        ),
    );
    line(
        text,
        "corrected",
        &format!(
            "written again, whole, when points come late: until its end + {} ({} + {} of allowed_lateness)",
            shown(disorder.saturating_add(lateness)),
            shown(disorder),
            shown(lateness)
        ),
    );
    line(
        text,
        "final",
        &format!(
            "after that; points too late for a window{} go to topic `{}`, and are in cold storage like all others",
            if rollup.tiers().len() > 1 { " of the finest tier" } else { "" },
            config.topics.late
        ),
    );
    line(
        text,
        "silence",
        &format!(
            "a partition read to its end and silent for {} (idle_timeout in [ingest]) holds no window open",
            shown(config.ingest.idle_timeout)
        ),
    );
}

fn stored(text: &mut String, rollup: &Rollup, config: &Config) {
    let (schema, shape) = (&rollup.schema, &rollup.shape);
    match rollup.shape.tags.is_empty() {
        true => section(text, "Result: one row a window"),
        false => section(text, "Result: one row a window and combination of tags"),
    }
    line(text, "measurement", &rollup.name);
    if rollup.tiers().len() > 1 {
        for table in query::tables_of(rollup) {
            line(text, &format!("tier {}", table.tier), &place_of(&table, config));
        }
    }
    line(text, "time", &format!("start of the window, column {}", schema.field(shape.time).name()));
    for tag in &shape.tags {
        line(text, "tag", schema.field(*tag).name());
    }
    for field in &shape.fields {
        let field = schema.field(*field);
        line(text, "field", &format!("{}: {}", field.name(), influx_type(field.data_type())));
    }
    line(text, "for example", &example(rollup));
}

/// Where the rows of a tier are.
fn place_of(table: &Table, config: &Config) -> String {
    match &config.influx {
        Some(influx) if table.is_finest => format!("bucket {}", influx.bucket),
        Some(influx) => format!("bucket {}", influx.bucket_of(&table.tier).name),
        None => format!("table {}", table.name),
    }
}

fn state(text: &mut String, rollup: &Rollup, catalog: &Catalog) {
    let labels: Vec<&str> = catalog
        .labels
        .iter()
        .map(String::as_str)
        .filter(|label| rollup.finest().batch_sql.contains(&format!("['{}']", label.replace('\'', "''"))))
        .collect();
    section(text, "State, kept for each row until its window is final");
    let labels = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
    line(text, "labels read", &labels);
    for field in rollup.state_schema().fields() {
        line(text, "column", &format!("{}: {}", field.name(), field.data_type()));
    }
    line(
        text,
        "fingerprint",
        &format!("{:016x}; a query with another one starts over at a window boundary", rollup.fingerprint),
    );
}

/// The type that InfluxDB gives a field; it refuses another type later.
fn influx_type(kind: &DataType) -> &'static str {
    match kind {
        DataType::Boolean => "boolean",
        kind if kind.is_unsigned_integer() => "unsigned integer",
        kind if kind.is_signed_integer() => "integer",
        kind if kind.is_numeric() => "float",
        _ => "string",
    }
}

/// A row in line protocol, with made-up values.
fn example(rollup: &Rollup) -> String {
    let name = |column: &usize| rollup.schema.field(*column).name().as_str();
    let mut tags: Vec<&str> = rollup.shape.tags.iter().map(name).collect();
    tags.sort_unstable();
    let mut line = rollup.name.clone();
    for tag in tags {
        let _ = write!(line, ",{}=…", escaped(tag));
    }
    for (index, field) in rollup.shape.fields.iter().enumerate() {
        let value = match influx_type(rollup.schema.field(*field).data_type()) {
            "boolean" => "true",
            "unsigned integer" => "1u",
            "integer" => "1i",
            "float" => "1.5",
            _ => "\"…\"",
        };
        let separator = if index == 0 { ' ' } else { ',' };
        let _ = write!(line, "{separator}{}={value}", escaped(name(field)));
    }
    line.push_str(" 1767225600000000000");
    line
}

/// A key as line protocol writes it.
fn escaped(key: &str) -> String {
    key.replace(',', "\\,").replace('=', "\\=").replace(' ', "\\ ")
}

fn section(text: &mut String, title: &str) {
    let _ = write!(text, "\n{title}\n");
}

fn line(text: &mut String, what: &str, value: &str) {
    let _ = writeln!(text, "  {what:<12} {value}");
}

fn shown(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}").trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use operators::sql::compile;

    use super::*;

    const CPU: &str = "CREATE MATERIALIZED VIEW cpu WITH (allowed_lateness = '10 minutes') AS
        SELECT tumble(time, INTERVAL '1 day', 'Europe/Berlin') AS day, labels['data center'] AS \"data center\",
               avg(value) AS avg, count(*) AS n, bool_and(value > 0) AS up
        FROM points WHERE labels['cpu'] = 'total' GROUP BY 1, 2";
    const NET: &str = "CREATE MATERIALIZED VIEW net AS
        SELECT tumble(time, INTERVAL '1 minute') AS w, max(value) AS max FROM points
        WHERE labels['interface'] <> 'lo' GROUP BY 1";

    fn catalog() -> Catalog {
        let catalog = compile(&[("cpu.sql".into(), CPU.into()), ("net.sql".into(), NET.into())]);
        assert_eq!(catalog.errors, []);
        catalog
    }

    #[test]
    fn says_what_is_stored_and_when_it_is_final() {
        let text = explain(&catalog(), "cpu", &Config::default()).unwrap();
        for expected in [
            "1day, aligned to midnight in Europe/Berlin",
            "its end + 5s (max_out_of_orderness",
            "until its end + 10m 5s (5s + 10m of allowed_lateness)",
            "tag          data center\n",
            "field        n: integer\n",
            "field        up: boolean\n",
            "cpu,data\\ center=… avg=1.5,n=1i,up=true 1767225600000000000",
            "labels read  cpu, data center\n",
            "mode=Partial",
            "mode=Final",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    #[test]
    fn shows_where_each_tier_goes_and_how_it_is_computed() {
        let tiered = "CREATE MATERIALIZED VIEW load WITH (tiers = '1m, 1h') AS
            SELECT tumble(time, INTERVAL '1 minute') AS w, max(value) AS max FROM points GROUP BY 1";
        let moving = "CREATE MATERIALIZED VIEW moving AS
            SELECT hop(time, INTERVAL '10 minutes', INTERVAL '5 minutes') AS w, max(value) AS max
            FROM points GROUP BY 1";
        let catalog = compile(&[("load.sql".into(), tiered.into()), ("moving.sql".into(), moving.into())]);
        let text = explain(&catalog, "load", &Config::default()).unwrap();
        for expected in [
            "tiers        1m, 1h: the same states",
            "tier 1m      table load\n",
            "tier 1h      table load_1h\n",
            "Query of tier 1h, as it runs in batch",
            "tumble(time, INTERVAL '1 hour') AS w",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        let text = explain(&catalog, "moving", &Config::default()).unwrap();
        for expected in [
            "length       10m, one starts every 5m since the epoch (UTC)",
            "unnest(hop_starts(time, INTERVAL '10 minutes', INTERVAL '5 minutes'))",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    #[test]
    fn offers_the_nearest_name() {
        let unknown = |name| explain(&catalog(), name, &Config::default()).unwrap_err();
        assert_eq!(unknown("cpus"), "unknown rollup `cpus`: did you mean `cpu`?");
        assert_eq!(unknown("zzz"), "unknown rollup `zzz`: known: cpu, net");
    }
}
