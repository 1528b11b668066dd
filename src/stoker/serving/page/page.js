"use strict";
// The form is made from /info, and what it says goes to /predict: this page knows nothing that the API does not tell.
// Text from the server becomes text nodes alone, never markup.

const at = (id) => document.getElementById(id);
const MOST_BARS = 10;
const MOST_OPTIONS = 50; // of a list that is chosen from; longer ones are typed, with suggestions
let model;
let token = "";
let image = null;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw { error: "The server does not answer." };
  }
  const body = await response.json();
  if (!response.ok) throw { status: response.status, ...body };
  return body;
}

async function begin() {
  try {
    model = await ask("info");
  } catch (problem) {
    const locked = problem.status === 401;
    at("access").hidden = !locked;
    const place = locked ? at("access-error") : at("error");
    place.textContent = locked && !token ? "" : problem.error;
    place.hidden = !place.textContent;
    if (locked) at("token").focus();
    return;
  }
  at("access").hidden = true;
  at("name").textContent = document.title = model.name;
  const wanted = model.target ? `${model.target}, ` : "";
  at("about").textContent = `${wanted}${model.task} · ${model.architecture} · ${model.parameters.toLocaleString()} parameters`;
  at("fields").replaceChildren(...(model.kind === "images" ? [dropField()] : model.columns.map(field)));
  at("example").hidden = model.kind === "images";
  at("form").hidden = false;
}

function field(column, place) {
  const id = `field-${place}`;
  const label = make("label", { for: id }, column.name);
  let input;
  const extra = [];
  if (column.kind === "boolean") {
    input = make("input", { id, type: "checkbox", "data-column": column.name });
    const checks = make("div", { class: "checks" }, make("label", {}, input, "yes"));
    if (column.missing_in_training) {
      const unknown = make("input", { type: "checkbox", id: `${id}-unknown` });
      unknown.addEventListener("change", () => { input.disabled = unknown.checked; });
      checks.append(make("label", {}, unknown, "not known"));
    }
    return make("div", { class: "field" }, label, checks);
  }
  if (column.kind === "categorical" && column.categories.length <= MOST_OPTIONS && !column.more_categories) {
    input = make("select", { id });
    input.append(make("option", { value: "" }, column.missing_in_training ? "not known" : "choose…"));
    // the position, since "" may not stand for both a category and none
    column.categories.forEach((name, index) => input.append(make("option", { value: index }, name)));
  } else if (column.kind === "categorical") {
    input = make("input", { id, list: `${id}-list`, placeholder: `such as ${column.example}`, autocomplete: "off" });
    extra.push(make("datalist", { id: `${id}-list` }, ...column.categories.map((name) => make("option", { value: name }))));
  } else if (column.kind === "numeric") {
    input = make("input", { id, type: "number", step: "any", autocomplete: "off", ...seen(column) });
  } else {
    input = make("input", { id, placeholder: `such as ${column.example}`, autocomplete: "off" });
  }
  input.setAttribute("data-column", column.name);
  input.setAttribute("aria-describedby", `${id}-kind`);
  const kind = { numeric: "a number", categorical: "one of a list", datetime: "a date or time", time: "a time" }[column.kind];
  label.append(" ", make("span", { class: "kind", id: `${id}-kind` }, kind));
  return make("div", { class: "field" }, label, input, ...extra);
}

// What training saw: the range exactly, cut to what fits into a field where it has many digits. Older runs do not have it.
function seen(column) {
  if (!column.range) return { placeholder: `usually ${column.usual.join(" to ")}` };
  const short = (value) => (String(value).length <= 8 ? String(value) : String(Number(value.toPrecision(6))));
  const told = (write) => [...new Set(column.range.map(write))].join(" to ");
  return { placeholder: `seen ${told(short)}`, title: `seen in training: ${told(String)}` };
}

function dropField() {
  const { width, height } = model.image;
  const input = make("input", { id: "file", type: "file", accept: "image/*" });
  const words = make("span", {}, "Drop an image here, or choose a file");
  const shape = make("span", { class: "kind" }, `it is brought to ${width} × ${height} pixels`);
  const preview = make("img", { alt: "the image to predict", hidden: true });
  const drop = make("label", { class: "drop", for: "file" }, preview, words, shape, input);
  const take = (file) => {
    image = file;
    if (preview.src) URL.revokeObjectURL(preview.src);
    preview.hidden = !file;
    if (!file) { preview.removeAttribute("src"); words.textContent = "Drop an image here, or choose a file"; return; }
    preview.src = URL.createObjectURL(file);
    words.textContent = file.name;
    predict();
  };
  input.addEventListener("change", () => take(input.files[0] ?? null));
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files[0] ?? null);
  });
  at("form").addEventListener("reset", () => take(null));
  return drop;
}

function valueOf(column, place) {
  const input = at(`field-${place}`);
  if (column.kind === "boolean") return at(`field-${place}-unknown`)?.checked ? null : input.checked;
  const text = input.value.trim();
  if (column.kind === "numeric" && input.validity.badInput) {
    throw { error: `column '${column.name}': must be a number.`, column: column.name };
  }
  if (text === "") return null;
  if (input.tagName === "SELECT") return column.categories[Number(text)];
  return column.kind === "numeric" ? Number(text) : text;
}

async function predict() {
  const button = at("predict");
  for (const input of document.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  try {
    button.disabled = true;
    const query = model.classes.length ? `?top_k=${Math.min(MOST_BARS, model.classes.length)}` : "";
    let options;
    if (model.kind === "images") {
      if (!image) throw { error: "There is no image yet: choose one." };
      options = { method: "POST", body: image, headers: { "Content-Type": image.type || "application/octet-stream" } };
      how(query, `--data-binary '@${image.name.replaceAll("'", "'\\''")}'`, options.headers["Content-Type"]);
    } else {
      const row = {};
      model.columns.forEach((column, place) => { Object.defineProperty(row, column.name, { value: valueOf(column, place), enumerable: true }); });
      options = { method: "POST", body: JSON.stringify([row]), headers: { "Content-Type": "application/json" } };
      how(query, `-d '${options.body.replaceAll("'", "'\\''")}'`, "application/json");
    }
    show((await ask(`predict${query}`, options)).predictions[0]);
  } catch (problem) {
    fail(problem);
  } finally {
    button.disabled = false;
  }
}

function show(row) {
  at("error").hidden = at("hint").hidden = true;
  at("found").hidden = false;
  at("target").textContent = model.target ?? "class";
  const value = row.prediction;
  at("prediction").textContent = typeof value === "number" ? String(Number(value.toPrecision(6))) : value ?? "not a number";
  at("prediction").dataset.value = String(value);
  const bars = (row.top ?? []).map((one) => {
    const bar = make("div");
    bar.style.width = `${100 * (one.probability ?? 0)}%`;
    const percent = `${(100 * (one.probability ?? 0)).toFixed(1)} %`;
    const head = make("dt", {}, make("span", {}, one.class), make("span", { "data-value": one.probability }, percent));
    return make("div", {}, head, make("dd", { "aria-hidden": "true" }, bar));
  });
  at("bars").replaceChildren(...bars);
  const left = model.classes.length - bars.length;
  at("more").textContent = `and ${left} more`;
  at("more").hidden = left <= 0;
}

function fail(problem) {
  at("found").hidden = at("hint").hidden = true;
  at("error").textContent = problem.error ?? String(problem);
  at("error").hidden = false;
  if (problem.status === 401) at("access").hidden = false;
  const place = (model.columns ?? []).findIndex((column) => column.name === problem.column);
  const input = at(`field-${place}`);
  if (input) { input.setAttribute("aria-invalid", "true"); input.focus(); }
}

function how(query, data, kind) {
  const bearer = token ? ' -H "Authorization: Bearer $STOKER_SERVE_TOKEN"' : "";
  at("curl").textContent = `curl '${location.origin}/predict${query}' -H 'Content-Type: ${kind}'${bearer} ${data}`;
  at("how").hidden = false;
}

at("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value;
  begin();
});
at("form").addEventListener("submit", (event) => { event.preventDefault(); predict(); });
at("form").addEventListener("reset", () => {
  for (const input of document.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  for (const input of document.querySelectorAll("#fields input:disabled")) input.disabled = false;
  at("found").hidden = at("error").hidden = at("how").hidden = true;
  at("hint").hidden = false;
});
at("example").addEventListener("click", () => {
  model.columns.forEach((column, place) => {
    const input = at(`field-${place}`);
    if (column.kind === "boolean") {
      input.checked = column.example;
      input.disabled = false;
      const unknown = at(`field-${place}-unknown`);
      if (unknown) unknown.checked = false;
    } else if (input.tagName === "SELECT") input.value = String(column.categories.indexOf(column.example));
    else input.value = column.example ?? "";
  });
});
begin();
