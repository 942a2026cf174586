use super::*;

/// `at what dispatch incident host[ by]`, where `-` is nothing.
fn entry(text: &str) -> Entry {
    let parts: Vec<&str> = text.split(' ').collect();
    let [at, what, dispatch, incident, host, by @ ..] = parts.as_slice() else { panic!("too short: {text}") };
    let given = |part: &str| (part != "-").then(|| part.to_owned());
    Entry {
        at: at.parse().expect("a number"),
        transition: given(incident).map(|incident| format!("t-{incident}")),
        dispatch: given(dispatch),
        rule: "cpu".to_owned(),
        labels: [("host".to_owned(), (*host).to_owned())].into(),
        incident: given(incident).unwrap_or_default(),
        what: serde_json::from_value((*what).into()).expect("it has such a name"),
        receiver: Some("oncall".to_owned()),
        by: (!by.is_empty()).then(|| by.join(" ")),
        reason: None,
    }
}

/// Two hosts, a dispatch that was replaced by two, one that only repeats.
const LEDGER: [&str; 11] = [
    "1 received - i1 a",
    "1 dispatched d1 i1 a",
    "2 received - i2 b",
    "2 dispatched d2 i2 b",
    "3 attempted d1 - a",
    "3 replaced d1 - a d3, d4",
    "4 delivered d2 - b",
    "5 attempted d3 - a",
    "6 delivered d3 - a",
    "6 delivered d4 - a",
    "9 delivered e9 - b",
];

fn select(question: &Question, notified: &[(&str, i64)]) -> (Ledger, Vec<String>) {
    let notified = notified.iter().map(|(id, at)| ((*id).to_owned(), *at)).collect();
    let ledger = Ledger::select(question, &notified, |since, take| {
        LEDGER
            .into_iter()
            .map(entry)
            .filter(|entry| since.is_none_or(|since| entry.at >= since))
            .for_each(take);
        Ok(())
    });
    let ledger = ledger.expect("nothing fails");
    let texts: Vec<String> = LEDGER
        .into_iter()
        .filter(|text| ledger.entries.contains(&entry(text)))
        .map(|text| text.split(' ').take(3).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(texts.len(), ledger.entries.len(), "nothing is there twice");
    (ledger, texts)
}

#[test]
fn what_a_question_is_about_is_kept_with_what_became_of_its_dispatches() {
    let of_a = [
        "1 received -",
        "1 dispatched d1",
        "3 attempted d1",
        "3 replaced d1",
        "5 attempted d3",
        "6 delivered d3",
        "6 delivered d4",
    ];
    let alerts = |host: &str| Question::Alerts {
        rule: "cpu".to_owned(),
        labels: [("host".to_owned(), host.to_owned())].into(),
    };
    let id = |id: &str| Question::Id(id.to_owned());
    // What is asked, how alerts stand, what is kept.
    type Case<'c> = (Question, &'c [(&'c str, i64)], &'c [&'c str]);
    let cases: [Case<'_>; 9] = [
        (Question::Now, &[], &[]),
        // What came before nobody looks at.
        (
            Question::Now,
            &[("d1", 3)],
            &["3 attempted d1", "3 replaced d1", "5 attempted d3", "6 delivered d3", "6 delivered d4"],
        ),
        (alerts("a"), &[], &of_a),
        // The repetition is not tied to the incident by the ledger, but by how the alert stands.
        (alerts("b"), &[("e9", 8)], &["2 received -", "2 dispatched d2", "4 delivered d2", "9 delivered e9"]),
        (alerts("c"), &[], &[]),
        (id("i1"), &[], &of_a),
        (id("t-i1"), &[], &of_a),
        (id("d1"), &[], &of_a),
        (id("e"), &[], &["9 delivered e9"]),
    ];
    for (question, notified, expected) in cases {
        assert_eq!(select(&question, notified).1, expected, "{question:?} {notified:?}");
    }
    let (several, _) = select(&id("i"), &[]);
    assert_eq!(several.ids.incidents.into_iter().collect::<Vec<_>>(), ["i1", "i2"]);
    assert!(select(&id(""), &[]).0.ids.incidents.is_empty());
}

#[test]
fn outcomes_follow_replacements() {
    let (ledger, _) = select(&Question::Id("i1".to_owned()), &[]);
    assert!(matches!(ledger.outcome("d1"), Outcome::Delivered(entry) if entry.at == 6));
    assert_eq!(ledger.outcome("d9"), Outcome::Open);
    assert_eq!(ledger.last_attempt("d1").map(|entry| entry.at), Some(3));
    assert_eq!(ledger.last_attempt("d4"), None);
    let gave_up = Ledger { entries: vec![entry("1 gave_up d1 - a mail")], ..Ledger::default() };
    assert!(matches!(gave_up.outcome("d1"), Outcome::GaveUp(entry) if entry.by.as_deref() == Some("mail")));
}

#[test]
fn the_newest_are_kept() {
    let mut kept = Kept::new(BTreeSet::new());
    let most = i64::try_from(MOST).expect("small");
    for at in 0..most + 5 {
        kept.take(Entry { at, ..entry("0 received - i1 a") }, true);
    }
    assert_eq!((kept.entries.len(), kept.entries[0].at), (MOST, 5));
}

#[test]
fn questions_are_about_alerts_with_more_labels_too() {
    let labels = |labels: &[(&str, &str)]| {
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let alert = labels(&[("host", "a"), ("zone", "eu")]);
    let question =
        |rule: &str, some: &[(&str, &str)]| Question::Alerts { rule: rule.to_owned(), labels: labels(some) };
    for (question, expected) in [
        (question("cpu", &[]), true),
        (question("cpu", &[("zone", "eu")]), true),
        (question("cpu", &[("zone", "us")]), false),
        (question("cpu", &[("rack", "")]), false),
        (question("disk", &[]), false),
        (Question::Now, true),
    ] {
        assert_eq!(question.is_about("cpu", &alert), expected, "{question:?}");
    }
}
