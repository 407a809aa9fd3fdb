//! The smooth pieces of a loss with kinks.

/// Where a value lies with respect to an interval; a kink is an interval of one point.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Side {
    Below,
    Inside,
    Above,
}

/// Which piece of each piecewise function an evaluation uses.
///
/// The first evaluation chooses each piece by its argument and records it. A replayed evaluation uses the
/// recorded pieces wherever its arguments lie: it computes the smooth function that equals the loss around the
/// first point.
#[derive(Default)]
pub(crate) struct Branches {
    sides: Vec<Side>,
    replayed: Option<usize>,
    /// Vectors that the loss holds constant.
    constants: Vec<Vec<f64>>,
    next_constant: usize,
    /// Since the start of the replay: an argument has left its recorded piece.
    pub(crate) crossed: bool,
    /// Since the start of the replay: an argument that sits exactly on a kink has moved.
    pub(crate) off_kink: bool,
}

impl Branches {
    /// Starts a replay of the recorded pieces.
    pub(crate) fn replay(&mut self) {
        self.replayed = Some(0);
        self.next_constant = 0;
        (self.crossed, self.off_kink) = (false, false);
    }

    /// The piece to use for `value`, where pieces meet at `low` and `high`.
    pub(super) fn side(&mut self, value: f64, (low, high): (f64, f64)) -> Side {
        let side = match value {
            value if value < low => Side::Below,
            value if value > high => Side::Above,
            _ => Side::Inside,
        };
        self.recorded(side, low == high)
    }

    /// Whether `value` is above `kink`.
    pub(super) fn above(&mut self, value: f64, kink: f64) -> bool {
        self.side(value, (kink, kink)) == Side::Above
    }

    /// The recorded one of two pieces, of which `first` tells the present one.
    pub(super) fn choice(&mut self, first: bool) -> bool {
        self.recorded(if first { Side::Below } else { Side::Above }, false) == Side::Below
    }

    /// A vector that is not differentiated: that of the first evaluation.
    pub(super) fn constant(&mut self, compute: impl FnOnce() -> Vec<f64>) -> &[f64] {
        if self.replayed.is_none() {
            self.constants.push(compute());
            self.next_constant = self.constants.len() - 1;
        }
        let index = self.next_constant;
        self.next_constant += 1;
        &self.constants[index]
    }

    fn recorded(&mut self, side: Side, at_a_point: bool) -> Side {
        let Some(index) = &mut self.replayed else {
            self.sides.push(side);
            return side;
        };
        let recorded = self.sides[*index];
        *index += 1;
        if side != recorded {
            let kink = at_a_point && recorded == Side::Inside;
            self.off_kink |= kink;
            self.crossed |= !kink;
        }
        recorded
    }
}
