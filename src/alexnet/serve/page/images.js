// Images come in: chosen, dropped, pasted, from the camera, or from the data; and the answer appears.
import { ask, file, get, pause, why } from "/page/api.js";
import { bars, element, only, press, say } from "/page/elements.js";
import { inWords, number, percent, word } from "/page/words.js";

const SAMPLES = 6;
const CAMERA_PIXELS = 320;

/** `watch` is told of every image that is shown: `{ name, blob, address, top }`. */
export function startImages(about, watch) {
  const tray = only("tray");
  let latest = 0; // answers that come after a later question are dropped
  let shown = null;

  const draw = () => {
    only("asked").textContent = shown ? [shown.name, shown.truth && word("truth", { label: shown.truth })].filter(Boolean).join(" · ") : "";
    only("bars").replaceChildren(...(shown?.top ? bars(shown.top, percent, shown.truth) : []));
    only("took").textContent = shown?.top && shown.took ? word("took", { ms: number(Math.round(shown.took)) }) : "";
    const verdict = only("verdict");
    verdict.classList.toggle("quiet", !shown?.top);
    if (!shown) verdict.textContent = word("noAnswer");
    else if (shown.error) verdict.textContent = why(shown.error);
    else verdict.textContent = shown.top ? shown.top[0].label : word("waiting");
  };
  inWords(draw);

  async function show(image) {
    const mine = ++latest;
    shown = image;
    const image = only("shown");
    image.src = image.address;
    image.alt = image.name;
    image.hidden = false;
    only("invitation").hidden = true;
    press(tray.querySelectorAll("button"), image.button);
    draw();
    if (!image.top) {
      const start = performance.now();
      try {
        const answer = await ask("/v1/predict", image, "predictions");
        [image.top, image.took] = [answer.top, performance.now() - start];
      } catch (error) {
        image.error = error;
      }
    }
    if (mine !== latest) return;
    draw();
    if (image.error) {
      say(word("error", { name: image.name, why: why(image.error) }));
      image.hidden = true;
      only("invitation").hidden = false;
      watch(null);
      return;
    }
    say(word("announce", { name: image.name, label: image.top[0].label, share: percent(image.top[0].probability) }));
    watch(image);
  }

  function add(blob, name, truth) {
    const image = { blob, name, truth, address: URL.createObjectURL(blob) };
    image.button = element("button", { type: "button", "aria-label": name, title: name }, element("img", { src: image.address, alt: "" }));
    image.button.addEventListener("click", () => show(image));
    tray.prepend(element("li", {}, image.button));
    return image;
  }

  function take(files) {
    const images = [...files].map((blob) => add(blob, blob.name || word("yourImage")));
    if (images.length) {
      stopCamera();
      show(images[0]);
    }
  }

  async function fromData(address, name, truth) {
    stopCamera();
    show(add(await file(address), name, truth));
    only("ask-heading").scrollIntoView({ block: "start" });
  }

  only("choose").addEventListener("click", () => only("file").click());
  only("file").addEventListener("change", (event) => {
    take(event.target.files);
    event.target.value = "";
  });
  const drop = only("drop");
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => event.preventDefault());
  for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, () => drop.classList.add("over-it"));
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over-it"));
  drop.addEventListener("drop", (event) => take(event.dataTransfer.files));
  addEventListener("paste", (event) => take(event.clipboardData.files));

  // The camera: one frame is asked about at a time, the next when its answer is there.
  const [video, camera, keep] = [only("video"), only("camera"), only("keep")];
  let stream = null;

  const frame = () => {
    const scale = CAMERA_PIXELS / Math.min(video.videoWidth, video.videoHeight);
    const canvas = element("canvas", { width: video.videoWidth * scale, height: video.videoHeight * scale });
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
  };

  async function watchCamera() {
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      say(word("cameraNone", { why: error.message }));
      only("took").textContent = word("cameraNone", { why: error.message });
      return;
    }
    video.srcObject = stream;
    await video.play();
    const mine = ++latest;
    [video.hidden, keep.hidden, only("shown").hidden, only("invitation").hidden] = [false, false, true, true];
    camera.textContent = word("cameraStop");
    while (stream && mine === latest) {
      const image = { blob: await frame(), name: word("live") };
      const start = performance.now();
      try {
        const answer = await ask("/v1/predict", image, "predictions");
        if (!stream || mine !== latest) return;
        shown = { name: word("live"), top: answer.top, took: performance.now() - start };
      } catch (error) {
        shown = { name: word("live"), error };
        await pause(1000);
      }
      draw();
    }
  }

  function stopCamera() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    [video.hidden, keep.hidden] = [true, true];
    only("invitation").hidden = !only("shown").hidden;
    camera.textContent = word("camera");
  }

  inWords(() => (camera.textContent = word(stream ? "cameraStop" : "camera")));
  camera.addEventListener("click", () => {
    if (!stream) return watchCamera();
    stopCamera();
    latest++;
    shown = null;
    draw();
  });
  keep.addEventListener("click", async () => {
    const blob = await frame();
    stopCamera();
    show(add(blob, word("live")));
  });

  addEventListener("look-into", ({ detail }) => fromData(detail.address, detail.name, detail.label));
  if (about.data?.measured) samples(about, fromData);
}

/** A few images of the test split, spread over it. */
async function samples(about, fromData) {
  const split = about.data.measured;
  const { images } = await get(`/v1/samples?count=${SAMPLES}`);
  only("samples").hidden = !images.length;
  inWords(() =>
    only("sample-list").replaceChildren(
      ...images.map((image) => {
        const label = word("sample", { split, position: image.position, label: image.label });
        const button = element("button", { type: "button", "aria-label": label, title: label }, element("img", { src: image.address, alt: "" }));
        button.addEventListener("click", () => fromData(image.address, image.name, image.label));
        return element("li", {}, button);
      }),
    ),
  );
}
