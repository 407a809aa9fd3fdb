//! Collecting labels that arrive row by row, as numbers or as names.

use std::collections::HashMap;

/// One label per row read so far.
///
/// Names are interned in the order of their first appearance; [`finish`](Labels::finish) then gives them
/// their final numbers, which depend on the set of names alone and not on the order of the rows.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    ids: Vec<u32>,
    names: Vec<String>,
    index: HashMap<String, u32>,
}

impl Labels {
    /// Adds a label that is a number.
    pub(crate) fn push(&mut self, label: u32) {
        self.ids.push(label);
    }

    /// Adds a label by its name. A collection holds either numbers or names.
    pub(crate) fn push_name(&mut self, name: &str) {
        let id = match self.index.get(name) {
            Some(&id) => id,
            None => {
                let id = self.names.len() as u32;
                self.names.push(name.to_owned());
                self.index.insert(name.to_owned(), id);
                id
            }
        };
        self.ids.push(id);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.ids.clear();
        self.names.clear();
        self.index.clear();
    }

    /// The labels (if there were any) and the names of the classes (if they had names).
    ///
    /// Names that are all whole numbers from 0 stand for themselves. Other names are sorted, and label `k`
    /// is the `k`-th of them.
    pub(crate) fn finish(self) -> (Option<Vec<u32>>, Option<Vec<String>>) {
        if self.ids.is_empty() {
            return (None, None);
        }
        if self.names.is_empty() {
            return (Some(self.ids), None);
        }
        let numbers: Option<Vec<u32>> = self.names.iter().map(|n| number(n)).collect();
        if let Some(numbers) = numbers {
            let labels = self.ids.iter().map(|&id| numbers[id as usize]).collect();
            return (Some(labels), None);
        }
        let mut order: Vec<usize> = (0..self.names.len()).collect();
        order.sort_by(|&a, &b| self.names[a].cmp(&self.names[b]));
        let mut rank = vec![0u32; order.len()];
        for (position, &id) in order.iter().enumerate() {
            rank[id] = position as u32;
        }
        let labels = self.ids.iter().map(|&id| rank[id as usize]).collect();
        let names = order.iter().map(|&id| self.names[id].clone()).collect();
        (Some(labels), Some(names))
    }
}

/// A whole number from 0, also when written as `3.0`.
fn number(text: &str) -> Option<u32> {
    text.strip_suffix(".0").unwrap_or(text).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str]) -> (Option<Vec<u32>>, Option<Vec<String>>) {
        let mut labels = Labels::default();
        names.iter().for_each(|name| labels.push_name(name));
        labels.finish()
    }

    #[test]
    fn whole_numbers_stand_for_themselves() {
        assert_eq!(labels(&["7", "0", "3.0"]), (Some(vec![7, 0, 3]), None));
    }

    #[test]
    fn names_are_numbered_in_their_sorted_order() {
        let names = Some(vec!["ant".to_owned(), "bee".to_owned()]);
        assert_eq!(labels(&["bee", "ant", "bee"]), (Some(vec![1, 0, 1]), names));
        let names = Some(vec!["-1".to_owned(), "1".to_owned()]);
        assert_eq!(labels(&["1", "-1"]), (Some(vec![1, 0]), names));
    }

    #[test]
    fn no_labels_are_none() {
        assert_eq!(labels(&[]), (None, None));
    }
}
