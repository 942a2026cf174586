//! Which statements are run: one query, or how it would be run, small enough to be planned.
//!
//! Whatever a text asks for, it can reach nothing but the tables of the session. This is the first
//! of three walls; the second is DataFusion's own refusal of everything that changes something, the
//! third a registry of stores that knows the storage alone ([`crate::cold`]).

use std::fmt::Display;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Query, Select, SetExpr, Statement, TableFactor, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Word};
use operators::sql::long_chain;

use crate::error::{Error, Result};

/// Bytes of a text. Planning takes memory and stack for all of it.
const LONGEST: usize = 64 << 10;
/// Words, numbers, signs.
const MOST_TOKENS: usize = 5_000;
/// SELECTs that are united, and tables that are joined: each is a level of the plan.
const MOST_TABLES: usize = 100;

/// Parses a text that may be run. To be called on a thread with a deep stack.
///
/// # Errors
/// [`Error::Statement`] with what is wrong with it.
pub(crate) fn allowed(sql: &str) -> Result<Statement> {
    let tokens = tokens_of(sql)?;
    let mut statements = Parser::new(&GenericDialect {})
        .with_tokens_with_locations(tokens)
        .parse_statements()
        .map_err(unreadable)?;
    let statement = match statements.len() {
        0 => return Err(refused("the text holds no statement")),
        1 => statements.remove(0),
        more => return Err(refused(&format!("the text holds {more} statements"))),
    };
    let query = match &statement {
        Statement::Query(query) => query,
        // ANALYZE would run it, and its rows would not be bounded by what reads them.
        Statement::Explain { analyze: false, statement: explained, .. } => match explained.as_ref() {
            Statement::Query(query) => query,
            _ => return Err(refused("EXPLAIN explains a SELECT")),
        },
        Statement::Explain { .. } => return Err(refused("EXPLAIN ANALYZE is not known here")),
        other => return Err(refused(&format!("{} is no query", first_words(&other.to_string())))),
    };
    let mut walk = Walk::default();
    let _ = query.visit(&mut walk);
    if let Some(problem) = walk.problem {
        return Err(refused(problem));
    }
    if walk.tables > MOST_TABLES {
        return Err(refused(&format!("the query names more than {MOST_TABLES} tables")));
    }
    Ok(statement)
}

fn refused(problem: &str) -> Error {
    Error::Statement(format!("the query cannot be run, as {problem}: write one SELECT"))
}

fn unreadable(error: impl Display) -> Error {
    Error::Statement(format!("the query cannot be read: {error}"))
}

/// The words and signs of a text that is small enough to be planned: before anything recurses over
/// it.
fn tokens_of(sql: &str) -> Result<Vec<TokenWithSpan>> {
    let too_long = |problem: String| {
        Err(Error::Statement(format!("the query cannot be run, as {problem}: divide it, or use IN (…)")))
    };
    if sql.len() > LONGEST {
        return too_long(format!("it has {} bytes, more than {LONGEST}", sql.len()));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().map_err(unreadable)?;
    let count = |counts: fn(&Token) -> bool| tokens.iter().filter(|token| counts(&token.token)).count();
    if count(|token| !matches!(token, Token::Whitespace(_))) > MOST_TOKENS {
        return too_long(format!("it has more than {MOST_TOKENS} words and signs"));
    }
    if count(unites) > MOST_TABLES {
        return too_long(format!("it unites or joins more than {MOST_TABLES} tables"));
    }
    if long_chain(&tokens).is_some() {
        return too_long("an expression has too many operations".to_owned());
    }
    Ok(tokens)
}

fn unites(token: &Token) -> bool {
    let Token::Word(Word { keyword, .. }) = token else { return false };
    matches!(keyword, Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS | Keyword::JOIN)
}

/// The name of a statement.
fn first_words(sql: &str) -> String {
    let words = sql.split_whitespace().take_while(|word| word.bytes().all(|byte| byte.is_ascii_uppercase()));
    let words: Vec<&str> = words.take(3).collect();
    if words.is_empty() { "it".to_owned() } else { words.join(" ") }
}

#[derive(Default)]
struct Walk {
    tables: usize,
    problem: Option<&'static str>,
}

impl Visitor for Walk {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if !only_selects(&query.body) {
            self.problem = Some("it changes something");
        }
        if !query.locks.is_empty() {
            self.problem = Some("it asks for a lock");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if select.into.is_some() {
            self.problem = Some("SELECT INTO makes a table");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, _: &TableFactor) -> ControlFlow<()> {
        self.tables += 1;
        ControlFlow::Continue(())
    }
}

fn only_selects(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) | SetExpr::Table(_) => true,
        SetExpr::SetOperation { left, right, .. } => only_selects(left) && only_selects(right),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(sql: &str) -> String {
        let sql = sql.to_owned();
        let parsed = std::thread::Builder::new().stack_size(64 << 20).spawn(move || allowed(&sql).map(drop));
        parsed.unwrap().join().unwrap().err().map_or(String::new(), |error| error.to_string())
    }

    #[test]
    fn queries_are_allowed() {
        for sql in [
            "SELECT 1",
            "SELECT * FROM points WHERE name = 'a' ORDER BY time LIMIT 3;",
            "WITH a AS (SELECT 1 AS x) SELECT * FROM a UNION ALL SELECT 2",
            "EXPLAIN SELECT 1",
            "VALUES (1), (2)",
            "(SELECT 1)",
        ] {
            assert_eq!(problem(sql), "", "{sql}");
        }
        let many: Vec<String> = (0..2_000).map(|number| number.to_string()).collect();
        assert_eq!(problem(&format!("SELECT 1 WHERE 1 IN ({})", many.join(","))), "");
        assert_eq!(problem(&format!("SELECT 1{}", "+1".repeat(500))), "");
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for (sql, expected) in [
            ("COPY (SELECT 1) TO 'x.csv'", "COPY is no query"),
            ("CREATE TABLE t AS SELECT 1", "CREATE TABLE is no query"),
            ("CREATE VIEW v AS SELECT 1", "CREATE VIEW is no query"),
            ("DROP TABLE points", "DROP TABLE is no query"),
            ("INSERT INTO points VALUES (1)", "INSERT INTO is no query"),
            ("DELETE FROM points", "DELETE FROM is no query"),
            ("UPDATE points SET value = 1", "UPDATE is no query"),
            ("SET datafusion.execution.batch_size = 1", "SET is no query"),
            ("PREPARE p AS SELECT 1", "PREPARE is no query"),
            ("EXECUTE p", "EXECUTE is no query"),
            ("BEGIN", "BEGIN is no query"),
            ("EXPLAIN ANALYZE SELECT 1", "EXPLAIN ANALYZE is not known"),
            ("EXPLAIN INSERT INTO points VALUES (1)", "EXPLAIN explains a SELECT"),
            ("SELECT 1 INTO t", "SELECT INTO makes a table"),
            ("SELECT * FROM points FOR UPDATE", "it asks for a lock"),
            ("SELECT 1; SELECT 2", "the text holds 2 statements"),
            (" ", "the text holds no statement"),
            ("SELEC 1", "the query cannot be read"),
        ] {
            let problem = problem(sql);
            assert!(problem.contains(expected), "{sql}: {problem}");
        }
    }

    #[test]
    fn what_would_exhaust_the_stack_is_refused() {
        for (sql, expected) in [
            (format!("SELECT 1{}", "+1".repeat(2_000)), "too many operations"),
            (format!("SELECT 1 WHERE 1=1{}", " OR 1=1".repeat(20_000)), "bytes"),
            (format!("SELECT 1 WHERE true{}", " OR true".repeat(2_000)), "too many operations"),
            (format!("SELECT {}1{}", "(".repeat(2_000), ")".repeat(2_000)), "too many operations"),
            (format!("SELECT {}1", "- ".repeat(400)), "recursion limit"),
            (format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(200)), "unites or joins more than 100"),
            (format!("SELECT 1 FROM t{}", " CROSS JOIN t".repeat(200)), "unites or joins more than 100"),
            (format!("SELECT 1 FROM t{}", ", t".repeat(200)), "more than 100 tables"),
            (format!("SELECT 1{}", ",1".repeat(3_000)), "more than 5000 words"),
            (format!("SELECT x{}", "::int".repeat(700)), "too many operations"),
            (format!("SELECT x{}", "[1]".repeat(700)), "too many operations"),
        ] {
            let problem = problem(&sql);
            assert!(problem.contains(expected), "{}…: {problem}", &sql[..30]);
        }
    }
}
