//! The figures of a benchmark: percentiles, ratios, a table and a chart.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

pub(super) const UP_WAIT: &str = "bare up --detach --wait";
pub(super) const UP: &str = "bare up --detach";
pub(super) const DOWN: &str = "bare down";
pub(super) const LAUNCH: &str = "launch";
pub(super) const CLOSE: &str = "close";
/// `Bottle::exec` of `true`, and the engine's own client.
const EXEC: &str = "exec of true";
const EXEC_BARE: &str = "docker exec of true";
/// The start of the launch's own file, as a launch does it, and of the same file without the services that own the network
/// namespaces of agent and pipelock.
pub(super) const START: &str = "create and start";
pub(super) const START_UNSEALED: &str = "create and start, no seal and outlet";

/// The removal of a stand-in for the document of the earlier Python system.
pub(super) const SEED_DOWN: &str = "down of the seed's stand-in";

/// Beginning of the name of a step's row.
pub(super) const STEP: &str = "step: ";

/// The ratios that are reported: a name, our row, and the row that it is compared with.
const RATIOS: [(&str, &str, &str); 5] = [
    ("launch / bare up --wait", LAUNCH, UP_WAIT),
    ("close / bare down", CLOSE, DOWN),
    ("down of the seed's stand-in / close", SEED_DOWN, CLOSE),
    ("exec of true / docker exec", EXEC, EXEC_BARE),
    ("start with / without seal and outlet", START, START_UNSEALED),
];

/// The seconds that each thing took, one number for each round.
#[derive(Default)]
pub(super) struct Figures(BTreeMap<String, Vec<f64>>);

impl Figures {
    pub(super) fn add(&mut self, name: &str, seconds: f64) {
        self.0.entry(name.to_owned()).or_default().push(seconds);
    }

    /// Returns the value below which this percentage of the rounds is, or 0 without rounds.
    pub(super) fn percentile(&self, name: &str, percent: usize) -> f64 {
        let mut sorted = self.0.get(name).cloned().unwrap_or_default();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((last * percent).div_ceil(100)).copied().unwrap_or_default()
    }

    /// Returns the ratios of the medians, of those rows that were measured.
    fn ratios(&self) -> Vec<(&'static str, f64)> {
        let measured =
            RATIOS.iter().filter(|(_, ours, other)| self.0.contains_key(*ours) && self.0.contains_key(*other));
        measured.map(|(name, ours, other)| (*name, self.percentile(ours, 50) / self.percentile(other, 50))).collect()
    }

    /// Returns a step's part of the launch. The parts of steps that run at the same time add up to more than the whole.
    fn share(&self, name: &str) -> Option<f64> {
        name.starts_with(STEP).then(|| self.percentile(name, 50) / self.percentile(LAUNCH, 50))
    }

    pub(super) fn report(&self) -> Value {
        let figure = |name: &String| {
            let (p50, p95) = (self.percentile(name, 50), self.percentile(name, 95));
            json!({"p50": p50, "p95": p95, "share_of_launch": self.share(name), "seconds": self.0.get(name)})
        };
        let all: BTreeMap<&String, Value> = self.0.keys().map(|name| (name, figure(name))).collect();
        json!({"figures": all, "ratios_of_p50": BTreeMap::from_iter(self.ratios())})
    }

    pub(super) fn print(&self, topology: &str) {
        println!("\nbottle `{topology}`, images present, seconds:                 p50    p95  of the launch");
        for name in self.0.keys() {
            let share = self.share(name).map_or(String::new(), |share| format!("{:>6.0} %", share * 100.0));
            println!("  {name:<50} {:>6.3} {:>6.3} {share}", self.percentile(name, 50), self.percentile(name, 95));
        }
        for (name, ratio) in self.ratios() {
            println!("  {name:<50} {ratio:>6.2}");
        }
    }

    /// Returns a chart: one bar for each row, as long as its median, with a line to the 95th percentile.
    pub(super) fn chart(&self, title: &str) -> String {
        const LINE: usize = 22;
        const LEFT: usize = 330;
        const WIDTH: f64 = 480.0;
        let longest = self.0.keys().map(|name| self.percentile(name, 95)).fold(0.001, f64::max);
        let x = |seconds: f64| seconds / longest * WIDTH;
        let height = LINE * (self.0.len() + 3);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"900\" height=\"{height}\" font-family=\"sans-serif\" \
             font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"12\" y=\"22\" font-size=\"15\">{}</text>\n",
            escaped(title)
        );
        // Steps come last, because they are parts of the rows above them.
        let (steps, rows): (Vec<_>, Vec<_>) = self.0.keys().partition(|name| name.starts_with(STEP));
        for (index, name) in rows.into_iter().chain(steps).enumerate() {
            let (p50, p95) = (self.percentile(name, 50), self.percentile(name, 95));
            let (top, middle) = (LINE * (index + 2), LINE * (index + 2) + 7);
            let fill = if name.starts_with(STEP) { "#9db8d2" } else { "#2f6aa3" };
            // Writing to a string cannot fail.
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" height=\"14\" fill=\"{fill}\"/>\
                 <path d=\"M{LEFT} {middle}h{:.1}\" stroke=\"#222\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{p50:.3} s</text>",
                LEFT - 8,
                top + 12,
                escaped(name),
                x(p50),
                x(p95),
                x(p95) + 338.0,
                top + 12,
            );
        }
        svg + "</svg>\n"
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut figures = Figures::default();
        (1..=10).rev().for_each(|seconds| figures.add("x", f64::from(seconds)));
        let shown = [0, 50, 95, 100].map(|percent| figures.percentile("x", percent).to_string());
        assert_eq!(shown, ["1", "6", "10", "10"]);
        assert!(figures.percentile("y", 50).abs() < f64::EPSILON);
    }

    #[test]
    fn a_ratio_needs_both_rows_and_a_share_is_of_the_launch() {
        let mut figures = Figures::default();
        figures.add(LAUNCH, 2.0);
        assert!(figures.ratios().is_empty());
        figures.add(UP_WAIT, 4.0);
        figures.add("step: verify", 0.5);
        assert_eq!(figures.ratios(), [("launch / bare up --wait", 0.5)]);
        assert_eq!((figures.share("step: verify"), figures.share(LAUNCH)), (Some(0.25), None));
    }

    #[test]
    fn a_chart_has_a_bar_for_each_row() {
        let mut figures = Figures::default();
        figures.add("step: a <b>", 0.25);
        figures.add(LAUNCH, 1.0);
        let chart = figures.chart("x & y");
        assert_eq!(chart.matches("height=\"14\"").count(), 2);
        assert!(chart.contains("x &amp; y") && chart.contains("step: a &lt;b>") && chart.contains("width=\"120.0\""));
        assert!(chart.find(LAUNCH) < chart.find("step: a"), "{chart}");
    }
}
