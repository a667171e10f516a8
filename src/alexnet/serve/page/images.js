// Input images (chosen, dropped, pasted, from the camera or from the dataset) and their predictions.
import { errorMessage, getBlob, getJson, postImage, sleep } from "/page/api.js";
import { announce, byId, element, press, probabilityBars } from "/page/elements.js";
import { formatNumber, formatPercent, onLanguageChange, text } from "/page/messages.js";

const SAMPLES = 6;
const CAMERA_PIXELS = 320;

/** What is shown of an answer of the API; where the run has a decision rule, the rule made it. */
const answerOf = ({ top, decision, label, probability }) => ({ top, decision, label, probability });

/** The decision: a class, or one of the two answers that hand the image to a person. */
const verdict = ({ decision, label }) => {
  if (decision === "unsure") return text("unsure", { label });
  return decision === "unknown" ? text("unknown") : label;
};

/** Calls `listener` with every image that is shown: `{ name, blob, url, top }`, or null. */
export function startImages(about, listener) {
  const tray = byId("tray");
  let latest = 0; // answers to any but the latest request are discarded
  let shown = null;

  const draw = () => {
    byId("source").textContent = shown ? [shown.name, shown.truth && text("truth", { label: shown.truth })].filter(Boolean).join(" · ") : "";
    byId("bars").replaceChildren(...(shown?.top ? probabilityBars(shown.top, formatPercent, shown.truth) : []));
    const notes = shown?.top && shown.duration ? [text("duration", { ms: formatNumber(Math.round(shown.duration)) })] : [];
    if (shown?.top && about.decision_rule.length) notes.push(text("ruled"));
    byId("duration").textContent = notes.join(" · ");
    byId("duration").title = about.decision_rule.join(" ");
    const prediction = byId("prediction");
    prediction.classList.toggle("quiet", !shown?.top);
    if (!shown) prediction.textContent = text("noImage");
    else if (shown.error) prediction.textContent = errorMessage(shown.error);
    else prediction.textContent = shown.top ? verdict(shown) : text("computing");
  };
  onLanguageChange(draw);

  async function show(image) {
    const request = ++latest;
    shown = image;
    const preview = byId("shown");
    preview.src = image.url;
    preview.alt = image.name;
    preview.hidden = false;
    byId("invitation").hidden = true;
    press(tray.querySelectorAll("button"), image.button);
    draw();
    if (!image.top) {
      const start = performance.now();
      try {
        const answer = await postImage("/v1/predict", image, "predictions");
        Object.assign(image, answerOf(answer), { duration: performance.now() - start });
      } catch (error) {
        image.error = error;
      }
    }
    if (request !== latest) return;
    draw();
    if (image.error) {
      announce(text("error", { name: image.name, reason: errorMessage(image.error) }));
      preview.hidden = true;
      byId("invitation").hidden = false;
      listener(null);
      return;
    }
    announce(text("announcement", { name: image.name, label: verdict(image), probability: formatPercent(image.probability) }));
    listener(image);
  }

  function add(blob, name, truth) {
    const image = { blob, name, truth, url: URL.createObjectURL(blob) };
    image.button = element("button", { type: "button", "aria-label": name, title: name }, element("img", { src: image.url, alt: "" }));
    image.button.addEventListener("click", () => show(image));
    tray.prepend(element("li", {}, image.button));
    return image;
  }

  function addFiles(files) {
    const images = [...files].map((blob) => add(blob, blob.name || text("image")));
    if (images.length) {
      stopCamera();
      show(images[0]);
    }
  }

  async function addStored({ url, name, label }) {
    stopCamera();
    show(add(await getBlob(url), name, label));
    byId("input-heading").scrollIntoView({ block: "start" });
  }

  byId("choose").addEventListener("click", () => byId("file").click());
  const takeChosen = () => {
    addFiles(byId("file").files);
    byId("file").value = "";
  };
  byId("file").addEventListener("change", takeChosen);
  const drop = byId("drop");
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => event.preventDefault());
  for (const type of ["dragenter", "dragover"]) drop.addEventListener(type, () => drop.classList.add("drag-over"));
  for (const type of ["dragleave", "drop"]) drop.addEventListener(type, () => drop.classList.remove("drag-over"));
  drop.addEventListener("drop", (event) => addFiles(event.dataTransfer.files));
  addEventListener("paste", (event) => addFiles(event.clipboardData.files));

  // The camera: one frame is in progress at a time; the next is sent when its answer arrives.
  const [video, camera, capture] = [byId("video"), byId("camera"), byId("capture")];
  let stream = null;

  const frame = () => {
    const scale = CAMERA_PIXELS / Math.min(video.videoWidth, video.videoHeight);
    const canvas = element("canvas", { width: video.videoWidth * scale, height: video.videoHeight * scale });
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
  };

  async function startCamera() {
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      announce(text("cameraError", { reason: error.message }));
      byId("duration").textContent = text("cameraError", { reason: error.message });
      return;
    }
    video.srcObject = stream;
    await video.play();
    const request = ++latest;
    [video.hidden, capture.hidden, byId("shown").hidden, byId("invitation").hidden] = [false, false, true, true];
    camera.textContent = text("cameraStop");
    while (stream && request === latest) {
      const image = { blob: await frame(), name: text("cameraFrame") };
      const start = performance.now();
      try {
        const answer = await postImage("/v1/predict", image, "predictions");
        if (!stream || request !== latest) return;
        shown = { name: text("cameraFrame"), ...answerOf(answer), duration: performance.now() - start };
      } catch (error) {
        shown = { name: text("cameraFrame"), error };
        await sleep(1000);
      }
      draw();
    }
  }

  function stopCamera() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    [video.hidden, capture.hidden] = [true, true];
    byId("invitation").hidden = !byId("shown").hidden;
    camera.textContent = text("camera");
  }

  onLanguageChange(() => (camera.textContent = text(stream ? "cameraStop" : "camera")));
  camera.addEventListener("click", () => {
    if (!stream) return startCamera();
    stopCamera();
    latest++;
    shown = null;
    draw();
  });
  capture.addEventListener("click", async () => {
    const blob = await frame();
    stopCamera();
    show(add(blob, text("cameraFrame")));
  });

  takeChosen(); // files that were chosen before this script ran
  addEventListener("inspect", ({ detail }) => addStored(detail));
  if (about.data?.evaluated_split) startSamples(about, addStored);
}

/** Some images of the test split, of all classes. */
async function startSamples(about, addStored) {
  const split = about.data.evaluated_split;
  const { images } = await getJson(`/v1/samples?count=${SAMPLES}`);
  byId("samples").hidden = !images.length;
  onLanguageChange(() =>
    byId("sample-list").replaceChildren(
      ...images.map((image) => {
        const label = text("sample", { split, position: image.position, label: image.label });
        const button = element("button", { type: "button", "aria-label": label, title: label }, element("img", { src: image.url, alt: "" }));
        button.addEventListener("click", () => addStored(image));
        return element("li", {}, button);
      }),
    ),
  );
}
