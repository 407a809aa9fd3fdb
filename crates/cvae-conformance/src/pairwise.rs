//! Covering arrays: few combinations in which every pair of values of two factors occurs.

/// Combinations over factors with `levels[i]` values each, such that every pair of values of every two factors
/// occurs in at least one. Greedy, and the same on every run.
pub(crate) fn pairwise(levels: &[usize]) -> Vec<Vec<usize>> {
    let mut open = Pairs::new(levels);
    let mut combinations = Vec::new();
    while let Some((first, second)) = open.any() {
        let mut combination: Vec<Option<usize>> = vec![None; levels.len()];
        combination[first.0] = Some(first.1);
        combination[second.0] = Some(second.1);
        for factor in 0..levels.len() {
            if combination[factor].is_none() {
                // Ties go to the value that earlier combinations used least.
                let offset = combinations.len();
                let values = (0..levels[factor]).map(|value| (value + offset) % levels[factor]);
                combination[factor] = values.rev().max_by_key(|value| open.gain(&combination, (factor, *value)));
            }
        }
        let combination: Vec<usize> = combination.into_iter().map(|value| value.unwrap_or(0)).collect();
        open.close(&combination);
        combinations.push(combination);
    }
    combinations
}

/// A value of a factor.
type Choice = (usize, usize);

/// The pairs that no combination covers yet.
struct Pairs {
    /// First choice of each factor in the numbering of all choices.
    starts: Vec<usize>,
    choices: Vec<Choice>,
    open: Vec<bool>,
}

impl Pairs {
    fn new(levels: &[usize]) -> Self {
        let mut choices: Vec<Choice> = Vec::new();
        let mut starts = Vec::new();
        for (factor, count) in levels.iter().enumerate() {
            starts.push(choices.len());
            choices.extend((0..*count).map(|value| (factor, value)));
        }
        let pairs = choices.iter().flat_map(|first| choices.iter().map(move |second| first.0 < second.0));
        let open = pairs.collect();
        Self { starts, choices, open }
    }

    fn index(&self, a: Choice, b: Choice) -> usize {
        let (first, second) = if a.0 < b.0 { (a, b) } else { (b, a) };
        (self.starts[first.0] + first.1) * self.choices.len() + self.starts[second.0] + second.1
    }

    fn any(&self) -> Option<(Choice, Choice)> {
        let index = self.open.iter().position(|open| *open)?;
        Some((self.choices[index / self.choices.len()], self.choices[index % self.choices.len()]))
    }

    /// Open pairs that `choice` closes together with what is chosen already.
    fn gain(&self, chosen: &[Option<usize>], choice: Choice) -> usize {
        let others = chosen.iter().enumerate().filter(|(factor, _)| *factor != choice.0);
        others
            .filter(|(factor, value)| value.is_some_and(|value| self.open[self.index((*factor, value), choice)]))
            .count()
    }

    fn close(&mut self, combination: &[usize]) {
        for first in 0..combination.len() {
            for second in first + 1..combination.len() {
                let index = self.index((first, combination[first]), (second, combination[second]));
                self.open[index] = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_occurs() {
        let levels = [9, 8, 4, 3, 2];
        let combinations = pairwise(&levels);
        for first in 0..levels.len() {
            for second in first + 1..levels.len() {
                for a in 0..levels[first] {
                    for b in 0..levels[second] {
                        assert!(
                            combinations.iter().any(|row| row[first] == a && row[second] == b),
                            "factor {first} = {a} with factor {second} = {b}"
                        );
                    }
                }
            }
        }
        assert!(combinations.len() < 110, "{} combinations for a lower bound of 72", combinations.len());
        assert!(combinations.iter().all(|row| row.iter().zip(levels).all(|(value, count)| *value < count)));
    }
}
