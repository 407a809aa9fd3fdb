//! What the page must hold and must not hold.

use super::*;

fn report(form: Form, width: usize) -> Report {
    let rows: Vec<f32> = (0..16 * width).map(|index| (index % 17) as f32 / 16.0).collect();
    let reconstructions = Reconstructions {
        form,
        width,
        originals: rows.clone(),
        model: rows.clone(),
        pca: rows.clone(),
        caption: "MSE on these rows 0.01".to_owned(),
    };
    Report {
        title: "digits <1> & \"more\"".to_owned(),
        summary: "A test of the page.".to_owned(),
        figures: vec![Figure { label: "test MSE", value: "0.0101".to_owned(), beside: "PCA 0.0223".to_owned() }],
        curves: vec![
            Curve {
                name: "training loss".to_owned(),
                points: (1..=40).map(|epoch| (f64::from(epoch), 3.0 / f64::from(epoch))).collect(),
                is_level: false,
            },
            Curve { name: "PCA".to_owned(), points: vec![(1.0, 0.1), (40.0, 0.1)], is_level: true },
        ],
        reconstructions: Some(reconstructions.clone()),
        worst: Some(reconstructions),
        scores: Some(Histogram {
            bars: vec![(0.0, 0.5, 7), (0.5, 1.0, 0), (1.0, 1.5, 3)],
            threshold: Some(0.75),
            caption: "Ten scores.".to_owned(),
        }),
        codes: Some(Codes {
            points: (0..50).map(|index| (index as f32, (index * index % 13) as f32)).collect(),
            labels: Some((0..50).map(|index| index % 10).collect()),
            classes: Some((0..10).map(|index| format!("<{index}>")).collect()),
            caption: "Two of eight components.".to_owned(),
        }),
        samples: Some(Samples { form, width, groups: vec![("prior".to_owned(), rows.clone())] }),
        paths: Some(Samples { form, width, groups: vec![("0 to 1".to_owned(), rows)] }),
        settings: vec![("objective".to_owned(), "collapsed".to_owned())],
        kernels: vec![("linear".to_owned(), "avx2 6x16".to_owned())],
    }
}

fn forms() -> [(Form, usize); 3] {
    let image = |channels| Form::Image(ImageShape { height: 4, width: 5, channels });
    [(image(1), 20), (image(3), 60), (Form::Profile, 20)]
}

#[test]
fn the_page_is_whole_and_needs_no_network() {
    for (form, width) in forms() {
        let page = render(&report(form, width));
        for part in [
            "Training",
            "Reconstructions",
            "Worst reconstructions",
            "Scores",
            "Codes",
            "Samples",
            "Interpolations",
            "0 to 1",
            "Configuration",
            "Kernels",
            "PCA 0.0223",
        ] {
            assert!(page.contains(part), "{part} is missing with {form:?}");
        }
        assert!(page.trim_end().ends_with("</html>"));
        for outside in ["http:", "https:", "src=\"//", "@import", "<script", "<link"] {
            assert!(!page.contains(outside), "{outside} with {form:?}");
        }
        for tag in ["section", "div", "svg", "ul", "table", "main", "dl"] {
            let opened = page.matches(&format!("<{tag}")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag} with {form:?}");
        }
    }
}

#[test]
fn bars_are_as_high_as_their_counts() {
    let page = render(&report(Form::Profile, 20));
    let heights: Vec<f64> = page
        .split("class=\"bar c0\"")
        .skip(1)
        .map(|bar| bar.split("height=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(heights.len(), 3);
    assert!(heights[1] == 0.0 && (heights[2] / heights[0] - 3.0 / 7.0).abs() < 0.01, "{heights:?}");
    assert_eq!(page.matches("class=\"line level c1\"").count(), 2, "a level of the curves and the threshold");
}

#[test]
fn names_from_data_are_text() {
    let page = render(&report(Form::Profile, 20));
    assert!(page.contains("digits &lt;1&gt; &amp; &quot;more&quot;"));
    assert!(page.contains("&lt;3&gt;") && !page.contains("<3>"));
}

#[test]
fn pictures_hold_the_values() {
    let shape = ImageShape { height: 2, width: 2, channels: 1 };
    let html = picture::strip(&[0.0, 1.0, 0.5, 2.0, -1.0, 0.25, 1.0, 0.0], shape, "two");
    let data = html.split("base64,").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    let luminance: Vec<u8> = pixels.iter().step_by(2).copied().collect();
    let opacity: Vec<u8> = pixels.iter().skip(1).step_by(2).copied().collect();
    assert_eq!(luminance, [0, 255, 0, 0, 64, 128, 255, 0, 255, 0]);
    assert_eq!(opacity, [255, 255, 0, 255, 255, 255, 255, 0, 255, 255]);
}

#[test]
fn odd_reports_are_drawn() {
    let mut odd = report(Form::Profile, 20);
    odd.curves[0].points[3].1 = f64::NAN;
    odd.curves.push(Curve { name: "one".to_owned(), points: vec![(1.0, 0.0)], is_level: false });
    odd.reconstructions = None;
    odd.worst = None;
    odd.scores = Some(Histogram { bars: vec![], threshold: Some(1.0), caption: String::new() });
    odd.paths = Some(Samples { form: Form::Profile, width: 20, groups: vec![] });
    if let Some(codes) = &mut odd.codes {
        codes.points = vec![(f32::NAN, 0.0), (1.0, 1.0)];
        codes.labels = None;
    }
    let page = render(&odd);
    assert!(!page.contains("NaN"), "a position is not a number");
}
