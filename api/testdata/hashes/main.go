// Writes hashes.json: the hashes that KubeFed makes of the objects below, by Go's own encoder and by structs that are
// shaped as KubeFed's are. Run it again after a change of the objects:
//
//	go run testdata/hashes/main.go > testdata/hashes/hashes.json
package main

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// cases are objects as they come over the wire.
var cases = []struct{ name, object string }{
	{"nothing", `{}`},
	{"an empty spec", `{"spec":{}}`},
	{"an empty template", `{"spec":{"template":{}}}`},
	{"empty overrides", `{"spec":{"overrides":[]}}`},
	{"the guide's deployment", `{"spec":{"template":{"metadata":{"labels":{"app":"nginx"}},"spec":{"replicas":3,"selector":{"matchLabels":{"app":"nginx"}},"template":{"metadata":{"labels":{"app":"nginx"}},"spec":{"containers":[{"image":"nginx:1.17","name":"nginx"}]}}}},"placement":{"clusters":[{"name":"cluster1"},{"name":"cluster2"}]},"overrides":[{"clusterName":"cluster1","clusterOverrides":[{"path":"/spec/replicas","value":2}]}]}}`},
	{"keys in another order", `{"spec":{"overrides":[{"clusterOverrides":[{"value":2,"path":"/a","op":"add"}],"clusterName":"c"}],"template":{"z":1,"a":{"c":1,"b":2},"B":3}}}`},
	{"characters that HTML minds", `{"spec":{"template":{"<k>&":"<script>&amp;'\"/"},"overrides":[{"clusterName":"<&>","clusterOverrides":[{"path":"/a~1<","value":"&"}]}]}}`},
	{"controls and separators", `{"spec":{"template":{"s":"\t\n\r\u0000\u0001\u001f\u007f\u2028\u2029 \\ \""},"overrides":[{"clusterName":"c","clusterOverrides":[{"path":"/s","value":"\t\u2028\u0007"}]}]}}`},
	{"letters beyond ASCII", `{"spec":{"template":{"ключ":"значение","漢":"字","emoji":"\ud83d\ude00","é":1},"overrides":[{"clusterName":"кластер","clusterOverrides":[{"path":"/漢","value":"😀"}]}]}}`},
	{"a script in a config map", `{"spec":{"template":{"data":{"run.sh":"#!/bin/sh\nif [ 1 -lt 2 ] && [ \"$A\" > x ]; then\n\techo \"<ok>\"\nfi\n"}}}}`},
	{"whole numbers", `{"spec":{"template":{"n":[0,1,-1,2147483648,9007199254740993,9223372036854775807,-9223372036854775808]},"overrides":[{"clusterName":"c","clusterOverrides":[{"path":"/n","value":[0,1,-1,2147483648,9007199254740993,9223372036854775807,-9223372036854775808]}]}]}}`},
	{"numbers beyond 64 bits", `{"spec":{"template":{"n":[9223372036854775808,18446744073709551615,18446744073709551616,100000000000000000000,1000000000000000000000]},"overrides":[{"clusterName":"c","clusterOverrides":[{"path":"/n","value":[18446744073709551615,1000000000000000000000]}]}]}}`},
	{"numbers with a point", `{"spec":{"template":{"n":[0.5,1.0,-2.50,3.14159,0.1,1e2,1e20,1e21,1.5e300,1e-6,1e-7,0.000001,0.0000001,123456789.123456789,5e-324,1.7976931348623157e308]},"overrides":[{"clusterName":"c","clusterOverrides":[{"path":"/n","value":[0.5,1.0,1e20,1e21,1e-6,1e-7,1e-10,1.5e-300]}]}]}}`},
	{"values that are empty but there", `{"spec":{"overrides":[{"clusterName":"c","clusterOverrides":[{"path":"/a","value":0},{"path":"/b","value":false},{"path":"/c","value":""},{"path":"/d","value":[]},{"path":"/e","value":{}},{"path":"/f","value":null},{"op":"remove","path":"/g"},{"op":"","path":"/h","value":1}]}]}}`},
	{"nulls inside", `{"spec":{"template":{"a":null,"b":[null,{"c":null}]},"overrides":[{"clusterName":"c","clusterOverrides":[{"path":"/a","value":{"b":null}}]}]}}`},
	{"a cluster without changes", `{"spec":{"overrides":[{"clusterName":"a"},{"clusterName":"b","clusterOverrides":[]},{"clusterName":"c","clusterOverrides":[{"path":"/x","value":"y"}]}]}}`},
	{"many operations", `{"spec":{"overrides":[{"clusterName":"c","clusterOverrides":[{"op":"add","path":"/spec/containers/-","value":{"name":"x","args":["--a=<b>"]}},{"op":"remove","path":"/spec/containers/0"},{"op":"replace","path":"/spec/paused","value":true}]}]}}`},
}

type override struct {
	Op    string      `json:"op,omitempty"`
	Path  string      `json:"path"`
	Value interface{} `json:"value,omitempty"`
}

type clusterOverrides struct {
	ClusterName      string     `json:"clusterName"`
	ClusterOverrides []override `json:"clusterOverrides,omitempty"`
}

type genericOverride struct {
	Spec *struct {
		Overrides []clusterOverrides `json:"overrides,omitempty"`
	} `json:"spec,omitempty"`
}

func main() {
	type golden struct {
		Name      string          `json:"name"`
		Object    json.RawMessage `json:"object"`
		Template  string          `json:"template"`
		Overrides string          `json:"overrides"`
	}
	var all []golden
	for _, c := range cases {
		decoder := json.NewDecoder(strings.NewReader(c.object))
		decoder.UseNumber()
		var object map[string]interface{}
		check(decoder.Decode(&object))
		object = plain(object).(map[string]interface{})
		all = append(all, golden{c.name, json.RawMessage(c.object), template(object), overrides(object)})
	}
	// One line each, so that a change shows as one line.
	for index, entry := range all {
		var line bytes.Buffer
		encoder := json.NewEncoder(&line)
		encoder.SetEscapeHTML(false)
		check(encoder.Encode(entry))
		before, after := " ", ","
		if index == 0 {
			before = "["
		}
		if index == len(all)-1 {
			after = "]"
		}
		fmt.Printf("%s%s%s\n", before, bytes.TrimSpace(line.Bytes()), after)
	}
}

func template(object map[string]interface{}) string {
	spec, _ := object["spec"].(map[string]interface{})
	template, ok := spec["template"].(map[string]interface{})
	if !ok {
		return ""
	}
	return hash(template)
}

// overrides goes through bytes and back into structs, as KubeFed does.
func overrides(object map[string]interface{}) string {
	var typed genericOverride
	check(json.Unmarshal(encode(object), &typed))
	if typed.Spec == nil {
		return ""
	}
	return hash(map[string]interface{}{"overrides": typed.Spec.Overrides})
}

func hash(value interface{}) string {
	sum := md5.Sum(encode(value))
	return hex.EncodeToString(sum[:])
}

func encode(value interface{}) []byte {
	var out bytes.Buffer
	check(json.NewEncoder(&out).Encode(value))
	return out.Bytes()
}

// plain makes numbers what Kubernetes' decoder makes of them: int64 where they are whole and fit, else float64.
func plain(value interface{}) interface{} {
	switch value := value.(type) {
	case map[string]interface{}:
		for key, inner := range value {
			value[key] = plain(inner)
		}
	case []interface{}:
		for index, inner := range value {
			value[index] = plain(inner)
		}
	case json.Number:
		if whole, err := value.Int64(); err == nil {
			return whole
		}
		float, err := value.Float64()
		check(err)
		return float
	}
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
