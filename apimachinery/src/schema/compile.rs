//! From documents to nodes. References, and `allOf` around a single one, are resolved here, so that walkers meet none.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Value, json};

use super::REFERENCE;
use super::walk::{Node, Types};

/// The arena, and the roots of the kinds in it.
pub(super) fn compile(
    documents: &BTreeMap<String, Value>,
    structural: bool,
) -> (Vec<Node>, BTreeMap<String, usize>) {
    let mut compiler = Compiler {
        documents,
        nodes: Vec::new(),
        named: HashMap::new(),
        structural: false,
        metadata: 0,
        text: 0,
    };
    let (metadata, text) =
        (compiler.node(object_meta()), compiler.node(&json!({"type": "string"})));
    (compiler.structural, compiler.metadata, compiler.text) = (structural, metadata, text);
    let mut roots = BTreeMap::new();
    for name in documents.keys() {
        let index = compiler.named(name);
        let mut root = compiler.nodes[index].clone();
        if root.properties.is_empty() && root.types != Types(Types::OBJECT) {
            continue;
        }
        compiler.make_resource(&mut root);
        compiler.nodes.push(root);
        roots.insert(name.clone(), compiler.nodes.len() - 1);
    }
    mark_defaults(&mut compiler.nodes);
    (compiler.nodes, roots)
}

struct Compiler<'a> {
    documents: &'a BTreeMap<String, Value>,
    nodes: Vec<Node>,
    named: HashMap<String, usize>,
    /// Whether documents say all that may be: see [`Schemas::structural`](super::Schemas::structural).
    structural: bool,
    metadata: usize,
    text: usize,
}

impl Compiler<'_> {
    /// Gives a node what every resource has.
    fn make_resource(&self, node: &mut Node) {
        for (name, index) in
            [("metadata", self.metadata), ("apiVersion", self.text), ("kind", self.text)]
        {
            node.properties.insert(name.into(), index);
        }
    }

    fn named(&mut self, name: &str) -> usize {
        if let Some(&index) = self.named.get(name) {
            return index;
        }
        // The place is taken before the document is walked: it may refer to itself.
        let index = self.nodes.len();
        self.nodes.push(Node::default());
        self.named.insert(name.to_owned(), index);
        let documents = self.documents;
        self.nodes[index] = match documents.get(name) {
            Some(document) => self.build(document),
            None => Node { open: true, nullable: true, ..Node::default() },
        };
        index
    }

    fn node(&mut self, document: &Value) -> usize {
        if let Some(name) = reference(document)
            && document
                .as_object()
                .is_some_and(|map| map.keys().all(|key| key == "$ref" || key == "description"))
        {
            return self.named(name);
        }
        let node = self.build(document);
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn build(&mut self, document: &Value) -> Node {
        // What a reference names, with what stands beside the reference on top.
        let mut node = match reference(document) {
            Some(name) => {
                let index = self.named(name);
                self.nodes[index].clone()
            }
            None => Node::default(),
        };
        if let Some(types) = types(&document["type"]) {
            node.types = types;
        }
        let is = |name: &str| document[name] == true;
        if is("x-kubernetes-int-or-string") || document["format"] == "int-or-string" {
            node.types = Types(Types::INTEGER | Types::STRING);
        }
        node.nullable |= is("nullable") || nulls(&document["type"]);
        if let Some(properties) = document["properties"].as_object() {
            for (name, property) in properties {
                let index = self.node(property);
                node.properties.insert(name.clone(), index);
            }
        }
        match &document["additionalProperties"] {
            Value::Bool(true) => node.open = true,
            additional @ Value::Object(_) => node.additional = Some(self.node(additional)),
            _ => {}
        }
        if document["items"].is_object() {
            node.items = Some(self.node(&document["items"]));
        }
        let texts = |field: &str| -> Vec<String> {
            document[field]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        node.required.extend(texts("required"));
        if let Some(allowed) = document["enum"].as_array() {
            node.allowed.clone_from(allowed);
        }
        node.minimum = document["minimum"].as_f64().or(node.minimum);
        node.maximum = document["maximum"].as_f64().or(node.maximum);
        node.min_length = document["minLength"].as_u64().or(node.min_length);
        node.max_length = document["maxLength"].as_u64().or(node.max_length);
        node.max_items = document["maxItems"].as_u64().or(node.max_items);
        if self.structural {
            self.structural_only(document, &mut node);
        }
        if let Some(format) = document["format"].as_str() {
            node.format = Some(format.to_owned());
        }
        if let Some(default) = document.get("default") {
            node.default = Some(default.clone());
        }
        if is("x-kubernetes-preserve-unknown-fields") {
            node.open = true;
        }
        if is("x-kubernetes-embedded-resource") {
            if self.structural {
                self.make_resource(&mut node);
                node.required.extend(["apiVersion".into(), "kind".into()]);
            } else {
                node.open = true;
            }
        }
        node.as_given |= is(super::AS_GIVEN);
        match document["x-kubernetes-list-type"].as_str() {
            Some("set") => node.set = true,
            Some("map") => node.keys = texts("x-kubernetes-list-map-keys"),
            _ => {}
        }
        if document["x-kubernetes-map-type"] == "atomic" {
            node.atomic = true;
        }
        if let Some(key) = document["x-kubernetes-patch-merge-key"].as_str() {
            node.merge_key = Some(key.to_owned());
        }
        if let Some(strategy) = document["x-kubernetes-patch-strategy"].as_str() {
            strategy.clone_into(&mut node.patch_strategy);
        }
        // An object of which nothing is said holds anything.
        let said = !node.properties.is_empty() || node.additional.is_some() || self.structural;
        if !said && (node.types == Types(Types::OBJECT) || node.types == Types::default()) {
            node.open = true;
        }
        node
    }

    /// The keywords that Kubernetes' own documents do not have, or use for other ends.
    fn structural_only(&mut self, document: &Value, node: &mut Node) {
        let is = |name: &str| document[name] == true;
        node.min_items = document["minItems"].as_u64();
        node.min_properties = document["minProperties"].as_u64();
        node.max_properties = document["maxProperties"].as_u64();
        node.exclusive_minimum = is("exclusiveMinimum");
        node.exclusive_maximum = is("exclusiveMaximum");
        node.multiple_of = document["multipleOf"].as_f64().filter(|factor| *factor > 0.0);
        node.pattern = document["pattern"].as_str().and_then(|pattern| Regex::new(pattern).ok());
        let mut nodes = |field: &str| -> Vec<usize> {
            let documents = document[field].as_array().into_iter().flatten();
            documents.map(|document| self.node(document)).collect()
        };
        (node.all_of, node.any_of, node.one_of) = (nodes("allOf"), nodes("anyOf"), nodes("oneOf"));
        node.not = document["not"].is_object().then(|| self.node(&document["not"]));
    }
}

fn reference(document: &Value) -> Option<&str> {
    let direct = document["$ref"].as_str();
    let wrapped = || {
        document["allOf"]
            .as_array()
            .filter(|all| all.len() == 1)
            .and_then(|all| all[0]["$ref"].as_str())
    };
    direct.or_else(wrapped)?.strip_prefix(REFERENCE)
}

fn types(document: &Value) -> Option<Types> {
    let bit = |name: &str| match name {
        "object" => Types::OBJECT,
        "array" => Types::ARRAY,
        "string" => Types::STRING,
        "integer" => Types::INTEGER,
        "number" => Types::NUMBER | Types::INTEGER,
        "boolean" => Types::BOOLEAN,
        _ => 0,
    };
    match document {
        Value::String(name) => Some(Types(bit(name))),
        Value::Array(names) => Some(Types(
            names.iter().filter_map(Value::as_str).fold(0, |bits, name| bits | bit(name)),
        )),
        _ => None,
    }
}

fn nulls(document: &Value) -> bool {
    document.as_array().is_some_and(|names| names.iter().any(|name| name == "null"))
}

/// Marks the nodes below which a default can be found, so that the others are not walked.
fn mark_defaults(nodes: &mut [Node]) {
    loop {
        let mut changed = false;
        for index in 0..nodes.len() {
            let node = &nodes[index];
            if node.has_defaults || node.as_given {
                continue;
            }
            let children = || node.properties.values().chain(&node.additional).chain(&node.items);
            if children().any(|&child| nodes[child].default.is_some() || nodes[child].has_defaults)
            {
                nodes[index].has_defaults = true;
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

/// `meta/v1 ObjectMeta`, as far as decoding and merging need it.
fn object_meta() -> &'static Value {
    static OBJECT_META: OnceLock<Value> = OnceLock::new();
    OBJECT_META.get_or_init(|| {
        let text = json!({"type": "string"});
        let number = json!({"type": "integer"});
        let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
        json!({
            "type": "object",
            "properties": {
                "annotations": texts,
                "creationTimestamp": {"type": "string", "format": "date-time", "nullable": true},
                "deletionGracePeriodSeconds": number,
                "deletionTimestamp": {"type": "string", "format": "date-time"},
                "finalizers": {"type": "array", "items": text, "x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge"},
                "generateName": text,
                "generation": number,
                "labels": texts,
                "managedFields": {"type": "array", "items": {"type": "object"}},
                "name": text,
                "namespace": text,
                "ownerReferences": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "apiVersion": text, "kind": text, "name": text, "uid": text,
                            "controller": {"type": "boolean"}, "blockOwnerDeletion": {"type": "boolean"},
                        },
                        "x-kubernetes-map-type": "atomic",
                    },
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["uid"],
                    "x-kubernetes-patch-merge-key": "uid",
                    "x-kubernetes-patch-strategy": "merge",
                },
                "resourceVersion": text,
                "selfLink": text,
                "uid": text,
            },
        })
    })
}
