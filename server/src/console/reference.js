// The calls as /v1/openapi.json has them, to be read by people.

const $ = id => document.getElementById(id);

function made(kind, text, ...inside) {
  const element = document.createElement(kind);
  if (text) element.textContent = text;
  element.append(...inside);
  return element;
}

const named = (document, schema) => schema.$ref ? document.components.schemas[schema.$ref.split("/").pop()] : schema;

/** A schema's type in a few words. */
function words(document, schema) {
  if (!schema || schema === true) return "anything";
  if (schema.$ref) return words(document, named(document, schema));
  for (const some of ["anyOf", "oneOf", "allOf"]) {
    if (schema[some]) return schema[some].map(one => words(document, one)).join(" or ");
  }
  if (schema.enum) return schema.enum.map(value => JSON.stringify(value)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${words(document, schema.items)}`;
  const kind = [schema.type ?? "anything"].flat().map(type => type === "null" ? "nothing" : type).join(" or ");
  return schema.format ? `${kind} (${schema.format})` : kind;
}

/** What it is made of, a line for each part, parts of parts behind dots. */
function* parts(document, schema, before = "", depth = 0) {
  const found = schema && named(document, schema);
  if (!found || depth > 5) return;
  if (found.type === "array") { yield* parts(document, found.items, `${before}[]`, depth + 1); return; }
  const inner = found.anyOf ?? found.oneOf ?? found.allOf;
  if (inner) { for (const one of inner) yield* parts(document, one, before, depth + 1); return; }
  for (const [name, part] of Object.entries(found.properties ?? {})) {
    const path = before ? `${before}.${name}` : name;
    yield [path, words(document, part), (found.required ?? []).includes(name), part.description ?? named(document, part)?.description ?? ""];
    yield* parts(document, part, path, depth + 1);
  }
}

function table(titles, rows) {
  const element = made("table");
  const head = element.createTHead().insertRow();
  for (const title of titles) {
    const cell = made("th", title);
    cell.scope = "col";
    head.append(cell);
  }
  const body = element.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((text, at) => {
      const cell = made("td");
      if (at === 0) cell.append(made("code", text)); else cell.textContent = text;
      if (at > 0) cell.className = "wrap";
      line.append(cell);
    });
  }
  const wide = made("div", "", element);
  wide.className = "wide";
  return wide;
}

function operation(document, method, path, told) {
  const details = made("details", "", made("summary", "", made("code", `${method.toUpperCase()} ${path}`), ` ${told.summary ?? ""}`));
  details.className = "card";
  if (told.parameters?.length) {
    details.append(made("h3", "Parameters"), table(["Name", "In", "Type", "What it is"], told.parameters.map(one =>
      [one.name, one.in + (one.required ? ", needed" : ""), words(document, one.schema), one.description ?? ""])));
  }
  for (const [kind, media] of Object.entries(told.requestBody?.content ?? {})) {
    details.append(made("h3", `Body: ${kind}`), table(["Field", "Type", "Needed", "What it is"],
      [...parts(document, media.schema)].map(([name, type, needed, text]) => [name, type, needed ? "yes" : "no", text])));
  }
  const answers = Object.entries(told.responses).sort();
  details.append(made("h3", "Answers"), table(["Status", "What it says"], answers.map(([status, one]) => [status, one.description])));
  for (const [status, one] of answers.filter(([status]) => status < "300")) {
    for (const media of Object.values(one.content ?? {})) {
      const rows = [...parts(document, media.schema)].map(([name, type, , text]) => [name, type, text]);
      if (rows.length) details.append(made("h3", `Answer ${status}`), table(["Field", "Type", "What it is"], rows));
    }
  }
  return details;
}

try {
  const told = await (await fetch("/v1/openapi.json")).json();
  $("about").textContent = told.info.description;
  for (const { name } of told.tags) {
    const title = made("h2", name);
    title.id = name.replace(" ", "-");
    const link = made("a", name);
    link.href = `#${title.id}`;
    $("parts").append(link);
    $("calls").append(title);
    for (const [path, operations] of Object.entries(told.paths)) {
      for (const [method, one] of Object.entries(operations)) {
        if (one.tags?.includes(name)) $("calls").append(operation(told, method, path, one));
      }
    }
  }
} catch (error) {
  $("said").textContent = `the document cannot be read: ${error.message}`;
}
