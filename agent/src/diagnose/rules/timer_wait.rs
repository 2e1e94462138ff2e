//! A start waits for a timer that somebody set.

use crate::diagnose::starts::CategoryRule;

pub(super) const TIMER_WAIT: CategoryRule = CategoryRule {
    name: "timer_wait",
    about: "Starts that wait for timers, their own or a guest's, for 10 % of their time or more.",
    category: "timer",
    least: 0.10,
    does: "sleeps until a timer is over",
};

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Part, Scene};

    #[test]
    fn a_sentry_that_sleeps_while_all_wait_for_it_is_told() {
        let mut scene = Scene::healthy();
        scene.spend("gvisor", 0.2, Part::of("timer", "sentry").within("nanosleep").by("hrtimer_wakeup"));
        let finding = scene.only_finding("timer_wait");
        assert!(finding.text.contains("sentry in nanosleep"), "{}", finding.text);
        assert!(finding.text.contains("without that it would take"), "{}", finding.text);
    }
}
