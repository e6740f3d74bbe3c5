// Checks what is shipped for Grafana and Prometheus as those would read it: the dashboards against Grafana's own types, and
// every query against the grammars of the query editors. `cargo xtask dashboards` installs what is in package-lock.json
// and runs this; what else is asked of a dashboard is in agent/tests/dashboards.rs.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parser as logql } from "@grafana/lezer-logql";
import { parser as promql } from "@prometheus-io/lezer-promql";
import { parseAllDocuments } from "yaml";

const here = dirname(fileURLToPath(import.meta.url));
const top = dirname(here);
const faults = [];
let queries = 0;

const filesIn = (folder, ending) =>
  readdirSync(join(top, folder), { recursive: true })
    .filter((name) => name.endsWith(ending))
    .sort()
    .map((name) => join(folder, name));

/** The documents of a YAML file; what is wrong with it is a fault. */
function yaml(file) {
  return parseAllDocuments(readFileSync(join(top, file), "utf8"), { uniqueKeys: true }).map((document) => {
    [...document.errors, ...document.warnings].forEach((error) => faults.push(`${file}: ${error.message}`));
    return document.toJS();
  });
}

/** What Grafana puts in place of its variables, as far as the grammar needs it: times stand outside of strings. */
const withTimes = (query) => query.replaceAll(/\$__(rate_interval|interval|range|auto)\b/g, "5m");

function checkQuery(where, language, query) {
  queries += 1;
  const text = withTimes(query);
  (language === "loki" ? logql : promql).parse(text).iterate({
    enter(node) {
      if (node.type.isError) {
        const near = text.slice(Math.max(0, node.from - 20), node.to + 20);
        faults.push(`${where}: the query cannot be parsed near \`${near}\``);
      }
    },
  });
}

// Enums of the schema are written as their values in JSON, and an option that has a default may be left out.
const PRELUDE = `import type { Dashboard } from "@grafana/schema";
type Json<T> = unknown extends T ? T
  : T extends string ? \`\${T}\`
  : T extends number | boolean | null | undefined ? T
  : T extends Array<infer U> ? Json<U>[]
  : T extends object ? { [K in keyof T]: Json<T[K]> }
  : T;
type Some<T> = unknown extends T ? T : T extends Array<infer U> ? Some<U>[] : T extends object ? { [K in keyof T]?: Some<T[K]> } : T;
`;

// The files of the schema that have the options of a panel, by its type.
const PANELS = {
  bargauge: "bargauge/panelcfg/x/BarGaugePanelCfg",
  gauge: "gauge/panelcfg/x/GaugePanelCfg",
  logs: "logs/panelcfg/x/LogsPanelCfg",
  stat: "stat/panelcfg/x/StatPanelCfg",
  table: "table/panelcfg/x/TablePanelCfg",
  timeseries: "timeseries/panelcfg/x/TimeSeriesPanelCfg",
};
// Those of them that have options of their own for a field.
const WITH_FIELDS = ["table", "timeseries"];

/** What an annotation has of Loki's own, which the schema does not tell. */
const ofSchema = ({ expr, titleFormat, textFormat, tagKeys, ...annotation }) => annotation;

/** A program that compiles where the dashboard is one. */
function asProgram(file, { annotations, ...dashboard }) {
  dashboard.annotations = { list: annotations.list.map(ofSchema) };
  const lines = [PRELUDE, `export const dashboard: Json<Dashboard> = ${JSON.stringify(dashboard)};`];
  for (const panel of dashboard.panels.filter((panel) => panel.type !== "row")) {
    const schema = PANELS[panel.type];
    if (!schema) {
      faults.push(`${file}: nothing is known of the panel type ${panel.type}: add it to PANELS`);
      continue;
    }
    const of = (name) => `import("@grafana/schema/dist/esm/raw/composable/${schema}_types.gen").${name}`;
    lines.push(`export const options${panel.id}: Some<Json<${of("Options")}>> = ${JSON.stringify(panel.options)};`);
    const custom = panel.fieldConfig?.defaults.custom;
    if (custom && WITH_FIELDS.includes(panel.type)) {
      lines.push(`export const field${panel.id}: Some<Json<${of("FieldConfig")}>> = ${JSON.stringify(custom)};`);
    } else if (custom) {
      faults.push(`${file}: panel ${panel.id}: a ${panel.type} takes no custom options of fields`);
    }
  }
  return `${lines.join("\n")}\n`;
}

function checkTypes(programs) {
  const folder = mkdtempSync(join(here, "node_modules", ".types-"));
  try {
    for (const [file, program] of programs) writeFileSync(join(folder, `${basename(file, ".json")}.ts`), program);
    const options = { strict: true, noEmit: true, skipLibCheck: true, module: "nodenext", target: "esnext", types: [] };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions: options }));
    const compiler = join(here, "node_modules", "typescript", "bin", "tsc");
    const run = spawnSync(process.execPath, [compiler, "--pretty", "false", "-p", folder], { encoding: "utf8" });
    if (run.status !== 0) faults.push(`the types do not fit:\n${run.stdout}${run.stderr}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const programs = filesIn("grafana", ".json").map((file) => {
  const dashboard = JSON.parse(readFileSync(join(top, file), "utf8"));
  for (const panel of dashboard.panels) {
    for (const target of panel.targets ?? []) {
      checkQuery(`${file}: ${panel.title}: ${target.refId}`, target.datasource.type, target.expr);
    }
  }
  for (const note of dashboard.annotations.list) checkQuery(`${file}: ${note.name}`, note.datasource.type, note.expr);
  return [file, asProgram(file, dashboard)];
});
checkTypes(programs);

for (const file of filesIn("prometheus", ".rules.yml")) {
  for (const rule of yaml(file).flatMap(({ groups }) => groups.flatMap(({ rules }) => rules))) {
    checkQuery(`${file}: ${rule.alert ?? rule.record}`, "prometheus", rule.expr);
  }
}

const sources = {};
for (const file of filesIn("grafana/provisioning", ".yaml")) {
  const [content] = yaml(file);
  if (content.apiVersion !== 1) faults.push(`${file}: apiVersion is not 1`);
  for (const { uid, type } of content.datasources ?? []) sources[uid] = type;
}
for (const file of filesIn("grafana/provisioning/alerting", ".yaml")) {
  const uids = new Set();
  for (const rule of yaml(file).flatMap(({ groups }) => groups.flatMap(({ rules }) => rules))) {
    const where = `${file}: ${rule.title}`;
    if (!/^[a-z0-9-]{1,40}$/.test(rule.uid) || uids.has(rule.uid)) faults.push(`${where}: the uid ${rule.uid} is no good`);
    uids.add(rule.uid);
    if (!rule.data.some(({ refId }) => refId === rule.condition)) faults.push(`${where}: there is no ${rule.condition}`);
    for (const { datasourceUid, model } of rule.data) {
      if (datasourceUid === "__expr__") continue;
      if (!sources[datasourceUid]) faults.push(`${where}: the data source ${datasourceUid} is not provisioned`);
      else checkQuery(where, sources[datasourceUid], model.expr);
    }
  }
}

yaml("compose.yaml");
yaml("alertmanager/alertmanager.yml");

if (faults.length > 0) {
  console.error(faults.join("\n"));
  process.exit(1);
}
console.log(`${programs.length} dashboards fit Grafana's types; ${queries} queries parse`);
