//! YAML as a tree in which every node knows its place.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A node with its place in the file, both from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub line: u64,
    pub column: u64,
    pub value: NodeValue,
}

/// What a node holds. Scalars keep their text, so that `on`, `1e3` and `08` mean what the reader wants.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeValue {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Seq(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// The value of a key, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let NodeValue::Map(pairs) = &self.value else { return None };
        pairs.iter().find(|(k, _)| k.value == NodeValue::Text(key.to_owned())).map(|(_, value)| value)
    }

    /// The items, if this is a sequence.
    pub fn items(&self) -> &[Self] {
        if let NodeValue::Seq(items) = &self.value { items } else { &[] }
    }

    /// The outermost node at a place.
    pub(super) fn find(&self, place: (u64, u64)) -> Option<&Self> {
        if (self.line, self.column) == place {
            return Some(self);
        }
        match &self.value {
            NodeValue::Seq(items) => items.iter().find_map(|item| item.find(place)),
            NodeValue::Map(pairs) => pairs.iter().find_map(|(_, value)| value.find(place)),
            _ => None,
        }
    }

    /// Whether the place is one of this node's or of a node inside it.
    pub(super) fn contains(&self, place: (u64, u64)) -> bool {
        (self.line, self.column) == place
            || match &self.value {
                NodeValue::Seq(items) => items.iter().any(|item| item.contains(place)),
                NodeValue::Map(pairs) => pairs.iter().any(|(key, value)| key.contains(place) || value.contains(place)),
                _ => false,
            }
    }
}

type PlacedError = (u64, u64, String);

pub(super) fn parse(text: &str) -> Result<Node, PlacedError> {
    let empty = Node { line: 1, column: 1, value: NodeValue::Map(Vec::new()) };
    let significant =
        |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#') && line.trim() != "---";
    if !text.lines().any(significant) {
        return if text.contains('\t') { Err((1, 1, "a tab cannot indent YAML".to_owned())) } else { Ok(empty) };
    }
    let options = serde_saphyr::options! { strict_booleans: true };
    match serde_saphyr::from_str_with_options::<Node>(text, options) {
        Ok(node) => Ok(node),
        Err(error) => {
            let location = error.location();
            let (line, column) = location.map_or((1, 1), |location| (location.line(), location.column()));
            Err((line, column, first_line(&error.without_snippet().to_string())))
        }
    }
}

/// The message without the place that the library puts before or behind it.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or("not YAML");
    let line = line.split(" at line ").next().unwrap_or(line);
    line.trim_start_matches("error: ").to_owned()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<NodeValue>::deserialize(deserializer)?;
        let place = spanned.referenced;
        Ok(Self { line: place.line(), column: place.column(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for NodeValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = NodeValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_bool<E>(self, value: bool) -> Result<NodeValue, E> {
        Ok(NodeValue::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<NodeValue, E> {
        Ok(NodeValue::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<NodeValue, E> {
        i64::try_from(value).map(NodeValue::Int).map_err(|_| E::custom("number is too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<NodeValue, E> {
        Ok(NodeValue::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<NodeValue, E> {
        Ok(NodeValue::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<NodeValue, E> {
        Ok(NodeValue::Text(value))
    }

    fn visit_unit<E>(self) -> Result<NodeValue, E> {
        Ok(NodeValue::Null)
    }

    fn visit_none<E>(self) -> Result<NodeValue, E> {
        Ok(NodeValue::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<NodeValue, D::Error> {
        deserializer.deserialize_any(Self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<NodeValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(NodeValue::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NodeValue, A::Error> {
        let mut pairs: Vec<(Node, Node)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<Node, Node>()? {
            if pairs.iter().any(|(known, _)| known.value == key.value) {
                return Err(A::Error::custom(format!("key stands twice, again in line {}", key.line)));
            }
            pairs.push((key, value));
        }
        Ok(NodeValue::Map(pairs))
    }
}
