//! Patterns with wildcards, found by a subject.
//!
//! A pattern is tokens with dots between; `*` stands for any one token, and `>`, as the last one,
//! for one or more. The trie has a node for each beginning of a pattern, so that a lookup follows
//! the subject's tokens and sees no pattern that differs from it in the first of them. It is given
//! only patterns and subjects that were checked: no empty tokens, `>` at the end only, and no more
//! tokens than the protocol allows, which bounds the recursion.

use std::collections::HashMap;

const ONE: &[u8] = b"*";
const REST: &[u8] = b">";

/// Values by pattern.
#[derive(Debug)]
pub struct Trie<V> {
    root: Node<V>,
    len: usize,
    nodes: usize,
}

#[derive(Debug)]
struct Node<V> {
    /// Of patterns that go on with this very token.
    children: HashMap<Box<[u8]>, Self>,
    /// Of patterns that go on with `*`.
    one: Option<Box<Self>>,
    /// Of the pattern that ends here.
    here: Option<V>,
    /// Of the pattern that ends here with `>`.
    rest: Option<V>,
}

impl<V> Trie<V> {
    /// Without any pattern.
    pub fn new() -> Self {
        Self {
            root: Node::new(),
            len: 0,
            nodes: 1,
        }
    }

    /// Patterns there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Nodes there are, the root included; without patterns it is the only one.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// The value of a pattern.
    pub fn get(&self, pattern: &[u8]) -> Option<&V> {
        let mut node = &self.root;
        for token in tokens(pattern) {
            match token {
                REST => return node.rest.as_ref(),
                ONE => node = node.one.as_deref()?,
                _ => node = node.children.get(token)?,
            }
        }
        node.here.as_ref()
    }

    /// Gives a pattern a value, and returns the one it had.
    pub fn insert(&mut self, pattern: &[u8], value: V) -> Option<V> {
        let mut node = &mut self.root;
        for token in tokens(pattern) {
            if token == REST {
                let old = node.rest.replace(value);
                self.len += usize::from(old.is_none());
                return old;
            }
            node = node.child_or_new(token, &mut self.nodes);
        }
        let old = node.here.replace(value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Takes a pattern out, with the nodes that were there for it alone.
    pub fn remove(&mut self, pattern: &[u8]) -> Option<V> {
        let old = remove(&mut self.root, tokens(pattern), &mut self.nodes);
        self.len -= usize::from(old.is_some());
        old
    }

    /// Calls `each` with the value of every pattern that the subject matches, in no particular
    /// order, and returns how many nodes were looked at.
    pub fn matches<'t>(&'t self, subject: &[u8], each: &mut impl FnMut(&'t V)) -> usize {
        let mut visited = 0;
        find(&self.root, subject, false, each, &mut visited);
        visited
    }

    /// Calls `each` with every value.
    pub fn for_each<'t>(&'t self, each: &mut impl FnMut(&'t V)) {
        walk(&self.root, each);
    }
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> Node<V> {
    fn new() -> Self {
        Self {
            children: HashMap::new(),
            one: None,
            here: None,
            rest: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.one.is_none() && self.here.is_none() && self.rest.is_none()
    }

    fn child_or_new(&mut self, token: &[u8], nodes: &mut usize) -> &mut Self {
        if token == ONE {
            return self.one.get_or_insert_with(|| {
                *nodes += 1;
                Box::new(Self::new())
            });
        }
        self.children.entry(token.into()).or_insert_with(|| {
            *nodes += 1;
            Self::new()
        })
    }
}

fn tokens(pattern: &[u8]) -> impl Iterator<Item = &[u8]> {
    pattern.split(|byte| *byte == b'.')
}

fn remove<'p, V>(
    node: &mut Node<V>,
    mut tokens: impl Iterator<Item = &'p [u8]>,
    nodes: &mut usize,
) -> Option<V> {
    match tokens.next() {
        None => node.here.take(),
        Some(REST) => node.rest.take(),
        Some(ONE) => {
            let child = node.one.as_deref_mut()?;
            let old = remove(
                child,
                &mut tokens as &mut dyn Iterator<Item = &'p [u8]>,
                nodes,
            );
            if child.is_empty() {
                node.one = None;
                *nodes -= 1;
            }
            old
        }
        Some(token) => {
            let child = node.children.get_mut(token)?;
            let old = remove(
                child,
                &mut tokens as &mut dyn Iterator<Item = &'p [u8]>,
                nodes,
            );
            if child.is_empty() {
                node.children.remove(token);
                *nodes -= 1;
            }
            old
        }
    }
}

/// `left` is what is left of the subject; `ended` says that nothing is, not even an empty token.
fn find<'t, V>(
    node: &'t Node<V>,
    left: &[u8],
    ended: bool,
    each: &mut impl FnMut(&'t V),
    visited: &mut usize,
) {
    *visited += 1;
    if ended {
        if let Some(value) = &node.here {
            each(value);
        }
        return;
    }
    if let Some(value) = &node.rest {
        each(value);
    }
    if node.children.is_empty() && node.one.is_none() {
        return;
    }
    let (token, left, ended) = match left.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&left[..dot], &left[dot + 1..], false),
        None => (left, &[][..], true),
    };
    if let Some(child) = node.children.get(token) {
        find(child, left, ended, each, visited);
    }
    if let Some(child) = &node.one {
        find(child, left, ended, each, visited);
    }
}

fn walk<'t, V>(node: &'t Node<V>, each: &mut impl FnMut(&'t V)) {
    node.here.iter().chain(&node.rest).for_each(&mut *each);
    for child in node.children.values().chain(node.one.as_deref()) {
        walk(child, each);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use std::collections::BTreeMap;

    /// What a pattern means, said in the plainest way.
    fn naive(pattern: &[u8], subject: &[u8]) -> bool {
        let pattern: Vec<&[u8]> = tokens(pattern).collect();
        let subject: Vec<&[u8]> = tokens(subject).collect();
        for (at, token) in pattern.iter().enumerate() {
            match (*token, subject.get(at)) {
                (b">", found) => return found.is_some(),
                (b"*", Some(_)) => {}
                (token, Some(found)) if token == *found => {}
                _ => return false,
            }
        }
        pattern.len() == subject.len()
    }

    fn found(trie: &Trie<u32>, subject: &[u8]) -> Vec<u32> {
        let mut found = Vec::new();
        trie.matches(subject, &mut |value| found.push(*value));
        found.sort_unstable();
        found
    }

    fn subject() -> impl Strategy<Value = Vec<u8>> {
        vec(select(vec!["a", "b", "c"]), 1..5).prop_map(|tokens| tokens.join(".").into())
    }

    fn pattern() -> impl Strategy<Value = Vec<u8>> {
        let token = select(vec!["a", "b", "c", "*"]);
        (vec(token, 0..4), select(vec!["a", "*", ">"])).prop_map(|(mut tokens, last)| {
            tokens.push(last);
            tokens.join(".").into()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn it_finds_what_the_naive_model_finds(
            steps in vec((pattern(), any::<bool>(), any::<u32>()), 0..60),
            subjects in vec(subject(), 1..20),
        ) {
            let mut trie = Trie::new();
            let mut model = BTreeMap::new();
            for (pattern, is_insert, value) in steps {
                if is_insert {
                    prop_assert_eq!(trie.insert(&pattern, value), model.insert(pattern, value));
                } else {
                    prop_assert_eq!(trie.remove(&pattern), model.remove(&pattern));
                }
                prop_assert_eq!(trie.len(), model.len());
            }
            for subject in subjects {
                let mut expected: Vec<u32> = model
                    .iter()
                    .filter_map(|(pattern, value)| naive(pattern, &subject).then_some(*value))
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(found(&trie, &subject), expected);
            }
            let mut all = 0;
            trie.for_each(&mut |_| all += 1);
            prop_assert_eq!(all, model.len());
            for pattern in model.keys() {
                prop_assert_eq!(trie.get(pattern), model.get(pattern));
            }
            for pattern in model.keys() {
                prop_assert!(trie.remove(pattern).is_some());
            }
            prop_assert_eq!((trie.len(), trie.nodes()), (0, 1));
        }
    }

    #[test]
    fn unrelated_patterns_are_not_looked_at() {
        let mut trie = Trie::new();
        for (value, pattern) in ["shop.*.paid", "shop.>", "*.7.paid"]
            .into_iter()
            .enumerate()
        {
            trie.insert(pattern.as_bytes(), value);
        }
        let alone = trie.matches(b"shop.7.paid", &mut |_| {});
        for other in 0..20_000 {
            trie.insert(format!("other{other}.*.paid").as_bytes(), other);
            trie.insert(format!("shop.{}.x.>", other + 8).as_bytes(), other);
        }
        assert_eq!(trie.matches(b"shop.7.paid", &mut |_| {}), alone);
    }

    #[test]
    fn the_rest_is_at_least_one_token() {
        let mut trie = Trie::new();
        trie.insert(b"a.>", 1);
        trie.insert(b">", 2);
        assert_eq!(found(&trie, b"a"), [2]);
        assert_eq!(found(&trie, b"a.b"), [1, 2]);
        assert_eq!(found(&trie, b"a.b.c"), [1, 2]);
    }
}
