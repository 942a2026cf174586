//! Whatever happens, every transition is accounted for, and a restart changes nothing.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Step {
    /// Toggles an alert, by number.
    Toggle(usize),
    /// A provisional one is confirmed, or a firing one corrected, or the end of the last incident
    /// is.
    Correct(usize),
    Silence(usize, i64),
    Unsilence(usize),
    Acknowledge(usize),
    Unacknowledge(usize),
    Pass(i64),
    Sent(usize),
    Failed(usize, bool),
    GaveUp(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..8_usize).prop_map(Step::Toggle),
        2 => (0..8_usize).prop_map(Step::Correct),
        1 => ((0..3_usize), (1..600_i64)).prop_map(|(which, length)| Step::Silence(which, length)),
        1 => (0..3_usize).prop_map(Step::Unsilence),
        1 => (0..8_usize).prop_map(Step::Acknowledge),
        1 => (0..8_usize).prop_map(Step::Unacknowledge),
        5 => (1..400_i64).prop_map(Step::Pass),
        5 => (0..8_usize).prop_map(Step::Sent),
        3 => ((0..8_usize), any::<bool>()).prop_map(|(which, doubtful)| Step::Failed(which, doubtful)),
        1 => (0..8_usize).prop_map(Step::GaveUp),
        1 => Just(Step::Restart),
    ]
}

fn policy() -> Policy {
    let mut pages = route("pages", "severity=page", &["ops", "pager"], GroupBy::Labels(vec!["host".into()]));
    pages.escalations = vec![
        Escalation { after: 200 * SECOND, receivers: vec!["boss".into(), "ops".into()] },
        Escalation { after: 300 * SECOND, receivers: vec!["boss".into()] },
    ];
    pages.repeat_interval = 500 * SECOND;
    pages.goes_on = true;
    let mut all = route("all", "", &["desk"], GroupBy::All);
    all.mutes = vec!["hours".into()];
    let window = Window {
        times: vec![TimeRange::parse("00:20-00:30").unwrap(), TimeRange::parse("00:25-00:40").unwrap()],
        ..Window::default()
    };
    Policy {
        routes: vec![pages, route("alone", "host=h1", &["desk", "mail"], GroupBy::None), all],
        inhibitions: vec![
            Inhibition {
                source: matchers("severity=page"),
                target: matchers("alertname=cpu"),
                equal: vec!["host".into()],
            },
            Inhibition {
                source: matchers("host=h0"),
                target: matchers("host=~\"h0|h1\""),
                equal: Vec::new(),
            },
        ],
        mutes: vec![Mute { name: "hours".into(), zone: chrono_tz::UTC, windows: vec![window] }],
        receivers: receivers(&["ops", "pager", "boss", "desk", "mail"]),
        default_repeat: 0,
    }
}

/// A run of steps, with the outside world that a dispatcher has.
struct World {
    dispatcher: Dispatcher,
    now: i64,
    restarts: bool,
    records: BTreeMap<String, Vec<u8>>,
    effects: Vec<Effect>,
    /// Under way, by id.
    under_way: BTreeMap<String, Dispatch>,
    /// The incident of each alert, and how many there were.
    firing: Vec<Option<String>>,
    incidents: Vec<usize>,
    count: usize,
    /// The transitions of every dispatch that was not replaced, and those of all entries that end
    /// without one.
    taken_in: Vec<Transition>,
}

impl World {
    fn new(restarts: bool) -> Self {
        Self {
            dispatcher: Dispatcher::new(policy()),
            now: 0,
            restarts,
            records: BTreeMap::new(),
            effects: Vec::new(),
            under_way: BTreeMap::new(),
            firing: vec![None; 8],
            incidents: vec![0; 8],
            count: 0,
            taken_in: Vec::new(),
        }
    }

    fn collect(&mut self) {
        for effect in self.dispatcher.take_effects() {
            match &effect {
                Effect::Send(dispatch) => {
                    let is_second = self.under_way.values().any(|other| {
                        (&other.group, &other.receiver) == (&dispatch.group, &dispatch.receiver)
                    });
                    assert!(!is_second, "a second dispatch of a group while one is under way");
                    self.under_way.insert(dispatch.id.clone(), dispatch.clone());
                }
                Effect::Replaced { old, by } => {
                    assert_ne!(*old, by.id);
                    assert!(self.under_way.remove(old).is_some());
                    self.under_way.insert(by.id.clone(), by.clone());
                }
                Effect::Log(_) => {}
            }
            self.effects.push(effect);
        }
        for (key, value) in self.dispatcher.changes() {
            match value {
                Some(value) => self.records.insert(key, value),
                None => self.records.remove(&key),
            };
        }
    }

    fn restart(&mut self) {
        let records = self.records.clone().into_iter();
        self.dispatcher = Dispatcher::restore(policy(), records).unwrap();
        self.resume();
    }

    fn resume(&mut self) {
        self.dispatcher.resume();
        let again: BTreeMap<String, Dispatch> = self
            .dispatcher
            .take_effects()
            .into_iter()
            .map(|effect| match effect {
                Effect::Send(dispatch) => (dispatch.id.clone(), dispatch),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(again, self.under_way, "other dispatches are under way after a restart");
    }

    fn change(&mut self, alert: usize, incident: &str, status: Status, cause: Cause, provisional: bool) {
        let rule = if alert.is_multiple_of(2) { "cpu" } else { "down" };
        let tags = format!("host=h{} n={alert}", alert / 2 % 3);
        let mut transition = transition(rule, &tags, incident, status, self.now);
        self.count += 1;
        transition.id = format!("{}-{incident}-{status}", self.count);
        (transition.cause, transition.provisional) = (cause, provisional);
        self.dispatcher.transition(&transition, self.now * SECOND);
        self.taken_in.push(transition);
    }

    fn step(&mut self, step: &Step) {
        let now = self.now * SECOND;
        let nth =
            |which: usize, of: &BTreeMap<String, Dispatch>| of.keys().nth(which % of.len().max(1)).cloned();
        match step {
            Step::Toggle(alert) => match self.firing[*alert].take() {
                Some(incident) => {
                    self.change(*alert, &incident, Status::Resolved, Cause::Condition, false);
                }
                None => {
                    self.incidents[*alert] += 1;
                    let incident = format!("i{alert}-{}", self.incidents[*alert]);
                    let provisional = self.incidents[*alert].is_multiple_of(2);
                    self.change(*alert, &incident, Status::Firing, Cause::Condition, provisional);
                    self.firing[*alert] = Some(incident);
                }
            },
            Step::Correct(alert) => match self.firing[*alert].clone() {
                Some(incident) => {
                    let cause =
                        if self.count.is_multiple_of(2) { Cause::Correction } else { Cause::Condition };
                    self.change(*alert, &incident, Status::Firing, cause, false);
                }
                None if self.incidents[*alert] > 0 => {
                    let incident = format!("i{alert}-{}", self.incidents[*alert]);
                    self.change(*alert, &incident, Status::Resolved, Cause::Correction, false);
                }
                None => {}
            },
            Step::Silence(which, length) => {
                let matching = ["severity=page", "host=h1", "n=~\"[0-3]\""][*which];
                let command = silence(&format!("S{which}"), matching, self.now, self.now + length);
                self.dispatcher.command(&format!("s{which}"), Some(&command), now);
            }
            Step::Unsilence(which) => self.dispatcher.command(&format!("s{which}"), None, now),
            Step::Acknowledge(alert) => {
                let incident = format!("i{alert}-{}", self.incidents[*alert]);
                self.dispatcher.command(&format!("a{alert}"), Some(&acknowledge(&incident)), now);
            }
            Step::Unacknowledge(alert) => self.dispatcher.command(&format!("a{alert}"), None, now),
            Step::Pass(seconds) => {
                self.now += seconds;
                self.dispatcher.advance(self.now * SECOND);
            }
            Step::Sent(which) => {
                if let Some(id) = nth(*which, &self.under_way) {
                    self.under_way.remove(&id);
                    self.dispatcher.sent(&id, now);
                }
            }
            Step::Failed(which, doubtful) => {
                if let Some(id) = nth(*which, &self.under_way) {
                    self.dispatcher.failed(&id, "refused", *doubtful, now);
                }
            }
            Step::GaveUp(which) => {
                if let Some(id) = nth(*which, &self.under_way) {
                    self.under_way.remove(&id);
                    self.dispatcher.gave_up(&id, "refused", None, now);
                }
            }
            Step::Restart if self.restarts => self.restart(),
            // What is under way may have arrived in either world.
            Step::Restart => self.resume(),
        }
        self.collect();
    }

    /// Lets everything end.
    fn finish(&mut self) {
        for alert in 0..8 {
            if self.firing[alert].is_some() {
                self.step(&Step::Toggle(alert));
            }
        }
        for _ in 0..200 {
            self.step(&Step::Pass(400));
            while !self.under_way.is_empty() {
                self.step(&Step::Sent(0));
            }
        }
    }
}

fn check(steps: &[Step]) {
    let mut world = World::new(true);
    let mut plain = World::new(false);
    for step in steps {
        world.step(step);
        plain.step(step);
        assert_eq!(world.effects, plain.effects, "a restart changed what happens at {step:?}");
    }
    world.finish();
    plain.finish();
    assert_eq!(world.effects, plain.effects, "a restart changed how it ends");
    assert!(world.records.is_empty(), "state is left over: {:?}", world.records.keys());
    for dispatcher in [&world.dispatcher, &plain.dispatcher] {
        assert!(
            dispatcher.inhibited.is_empty()
                && dispatcher.dispatches.is_empty()
                && dispatcher.groups.is_empty()
        );
        assert_eq!(dispatcher.next_due(), None);
    }

    // Where each transition ended, by its receivers.
    let mut ends: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut not_routed = BTreeMap::new();
    let mut delivered: BTreeMap<&str, &Dispatch> = BTreeMap::new();
    // What a receiver knows, by incident.
    let mut known: BTreeMap<(&str, &str), Status> = BTreeMap::new();
    for effect in &world.effects {
        match effect {
            Effect::Send(dispatch) => {
                delivered.insert(&dispatch.id, dispatch);
            }
            Effect::Replaced { old, by } => {
                delivered.remove(old.as_str());
                delivered.insert(&by.id, by);
            }
            Effect::Log(entry) => {
                let Some(id) = entry.transition.as_deref().filter(|_| entry.what.ends_untold()) else {
                    continue;
                };
                match &entry.receiver {
                    Some(receiver) => *ends.entry((id, receiver.as_str())).or_default() += 1,
                    None => *not_routed.entry(id).or_insert(0) += 1,
                }
            }
        }
        if let Effect::Log(entry) = effect
            && entry.what == What::Delivered
            && let Some(dispatch) = entry.dispatch.as_deref().and_then(|id| delivered.get(id))
        {
            for alert in &dispatch.alerts {
                known.insert((&dispatch.receiver, &alert.transition.incident), alert.transition.status);
            }
        }
    }
    for dispatch in delivered.values() {
        for id in dispatch.alerts.iter().flat_map(|alert| &alert.transitions) {
            *ends.entry((id, &dispatch.receiver)).or_default() += 1;
        }
    }
    let routed: Vec<_> =
        world.taken_in.iter().map(|transition| (transition, policy().targets(transition).targets)).collect();
    for (transition, targets) in &routed {
        assert!(!targets.is_empty());
        for (target, _) in targets {
            let count = ends.remove(&(transition.id.as_str(), target.receiver.as_str())).unwrap_or(0);
            let count = count + not_routed.get(transition.id.as_str()).copied().unwrap_or(0);
            assert_eq!(count, 1, "ends of {} for {}", transition.id, target.receiver);
        }
    }
    for ((id, receiver), count) in ends {
        assert_eq!((receiver, count), ("boss", 1), "ends of {id} for whom it is not routed to");
    }
    let given_up =
        world.effects.iter().any(|effect| matches!(effect, Effect::Log(entry) if entry.what == What::GaveUp));
    for ((receiver, incident), status) in known {
        let is_over = status == Status::Resolved || receiver.starts_with("pager") || given_up;
        assert!(is_over, "{receiver} is left with an open incident {incident}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_transition_is_accounted_for_and_restarts_change_nothing(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        check(&steps);
    }
}
