//! Sets of nodes.

use crate::id::NodeId;

/// A set of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeSet {
    All,
    Only(Box<[u64]>),
}

impl NodeSet {
    pub fn of(nodes: &[NodeId]) -> NodeSet {
        let words = nodes.iter().map(|node| node.0 as usize / 64 + 1).max().unwrap_or(0);
        let mut bits = vec![0u64; words];
        for node in nodes {
            bits[node.0 as usize / 64] |= 1 << (node.0 % 64);
        }
        NodeSet::Only(bits.into())
    }

    pub fn contains(&self, node: NodeId) -> bool {
        match self {
            NodeSet::All => true,
            NodeSet::Only(bits) => {
                bits.get(node.0 as usize / 64).is_some_and(|word| word >> (node.0 % 64) & 1 == 1)
            }
        }
    }

    /// Whether all of them are among others.
    pub fn is_within(&self, others: &NodeSet) -> bool {
        match (self, others) {
            (_, NodeSet::All) => true,
            (NodeSet::All, NodeSet::Only(_)) => false,
            (NodeSet::Only(mine), NodeSet::Only(others)) => {
                let words = mine.iter().zip(others.iter().chain(std::iter::repeat(&0)));
                words.into_iter().all(|(mine, others)| mine & !others == 0)
            }
        }
    }
}
