"use strict";
// openapi.json, shown without anything from elsewhere.

const at = (id) => document.getElementById(id);
let token = "";

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

async function begin() {
  const response = await fetch("openapi.json", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
  const api = await response.json();
  at("access").hidden = response.ok;
  if (!response.ok) {
    at("error").textContent = token ? api.error : "";
    at("token").focus();
    return;
  }
  at("name").textContent = document.title = api.info.title;
  const articles = [];
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, what] of Object.entries(methods)) articles.push(article(path, method.toUpperCase(), what));
  }
  at("paths").replaceChildren(...articles);
}

function article(path, method, what) {
  const shown = make("article", {}, make("h2", {}, `${method} ${path}`), make("p", {}, what.description ?? ""));
  const queries = (what.parameters ?? []).filter((parameter) => parameter.in === "query");
  for (const { name, description } of queries) {
    shown.append(make("p", {}, make("code", {}, `?${name}=`), ` ${description ?? ""}`));
  }
  for (const [kind, { example }] of Object.entries(what.requestBody?.content ?? {})) {
    const data = example === undefined ? "@FILE" : `'${body(example).replaceAll("'", "'\\''")}'`;
    const given = kind === "multipart/form-data" ? "-F file=@FILE" : `-H 'Content-Type: ${kind}' --data-binary ${data}`;
    shown.append(make("pre", {}, `curl '${location.origin}${path}' ${given}`));
  }
  return shown;
}

const body = (example) => (typeof example === "string" ? example : JSON.stringify(example));

at("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value;
  begin();
});
begin();
