//! Rows drawn as images, many in one picture that is part of the page.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cvae_data::ImageShape;

use super::html::escape;

/// An `<img>` with the images of `values` (`rows × shape`) side by side in one line.
///
/// Values from 0 to 1 become black to white; what lies outside is cut off there.
pub(super) fn strip(values: &[f32], shape: ImageShape, text: &str) -> String {
    let images: Vec<&[f32]> = values.chunks_exact(shape.len().max(1)).collect();
    let colours = if shape.channels == 3 { 3 } else { 1 };
    let gap = 1;
    let width = images.len() * (shape.width + gap) - gap.min(images.len());
    // Two channels: luminance or colour, and opacity, which is none in the gaps.
    let pixel = colours + 1;
    let mut pixels = vec![0u8; width * shape.height * pixel];
    for (index, image) in images.iter().enumerate() {
        for row in 0..shape.height {
            for column in 0..shape.width {
                let from = (row * shape.width + column) * shape.channels;
                let to = (row * width + index * (shape.width + gap) + column) * pixel;
                for colour in 0..colours {
                    pixels[to + colour] = byte(image[from + colour]);
                }
                pixels[to + colours] = u8::MAX;
            }
        }
    }
    let kind = if colours == 3 { png::ColorType::Rgba } else { png::ColorType::GrayscaleAlpha };
    let text = escape(text);
    match encode(&pixels, width, shape.height, kind) {
        Ok(bytes) => {
            let data = STANDARD.encode(bytes);
            format!("<img class=\"strip\" alt=\"{text}\" src=\"data:image/png;base64,{data}\">")
        }
        // Only a picture beyond the format's size limits is refused.
        Err(error) => format!("<p class=\"note\">{text}: {}</p>", escape(&error.to_string())),
    }
}

fn byte(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0).round() as u8
}

fn encode(pixels: &[u8], width: usize, height: usize, kind: png::ColorType) -> Result<Vec<u8>, png::EncodingError> {
    let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size(width), size(height));
    encoder.set_color(kind);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}
