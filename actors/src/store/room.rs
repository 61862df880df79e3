//! How much is read for one answer: others decide how large what they share is.

/// Bytes of rows that one answer is made of. As JSON, in all its forms on the way
/// out, they are several times that.
const MOST_BYTES: usize = 8 << 20;
/// What a row has beside its texts.
const OF_A_ROW: usize = 1 << 10;

/// The room that is left in one answer.
#[derive(Debug)]
pub(crate) struct Room {
    left: usize,
    is_empty: bool,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { left: MOST_BYTES, is_empty: true }
    }

    /// Takes the next row, whose texts have `bytes`, if there is room for it; the first
    /// always fits.
    pub(crate) fn takes(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes.saturating_add(OF_A_ROW));
        let takes = left.is_some() || self.is_empty;
        self.left = left.unwrap_or(0);
        self.is_empty = false;
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_room_for_one_row_and_for_as_many_as_fit() {
        let mut room = Room::new();
        assert!(room.takes(usize::MAX) && !room.takes(0));
        let mut room = Room::new();
        let rows = (0..100).take_while(|_| room.takes(1 << 20)).count();
        assert_eq!(rows, 7);
        assert!(!room.takes(0), "what comes after what did not fit does not");
    }
}
