/** A picture from a file, made small enough to send. */

const LONGEST = 256; // pixels
const QUALITY = 0.9;

/** A file's picture as a JPEG of at most 256 × 256 pixels, as a data: URL. Throws where it is no picture. */
export async function downscaled(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // JPEG knows no transparency
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.toDataURL("image/jpeg", QUALITY);
}

/** What follows the comma of a data: URL. */
export const base64 = (url) => url.slice(url.indexOf(",") + 1);
